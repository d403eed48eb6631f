"""Evaluate candidate deployments and recommend a route. Only the command `gateway evaluate` imports this package.

Questions (`suite`, `questions`, `checks`) are asked (`asking`, `work`, `load`) and their answers are stored (`store`).
`marks` states what each stored answer is worth in each figure; from there on every figure is treated alike: its
interval (`statistics`), its requirement (`figures`), its part in the decision (`decision`), its row in the report
(`report`) and its change between two runs (`drift`).
"""
