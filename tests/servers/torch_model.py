"""Write a model of random weights in the form of Hugging Face: `python torch_model.py FOLDER TEMPLATE`, with torch and transformers.

Its tokens are the 256 bytes, and its answers are ASCII. It imports nothing of ours: the Python that runs it has the server.
"""

import sys
from importlib.util import find_spec


def _write(folder: str, template: str) -> None:
    import torch
    from tokenizers import Tokenizer, decoders, models
    from tokenizers.pre_tokenizers import ByteLevel
    from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

    letters = sorted(ByteLevel.alphabet())
    bytes_only = Tokenizer(models.BPE(vocab={letter: at for at, letter in enumerate(letters)}, merges=[]))
    bytes_only.pre_tokenizer = ByteLevel(add_prefix_space=False)
    bytes_only.decoder = decoders.ByteLevel()
    special = {"eos_token": "<|im_end|>", "pad_token": "<|pad|>", "additional_special_tokens": ["<|im_start|>"]}
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=bytes_only, chat_template=template, **special)
    tokenizer.save_pretrained(folder)
    torch.manual_seed(1)
    end = tokenizer.eos_token_id
    ends = {"eos_token_id": end, "pad_token_id": tokenizer.pad_token_id}
    sizes = {"vocab_size": len(tokenizer), "hidden_size": 64, "intermediate_size": 128, "max_position_embeddings": 2048}
    layers = {"num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 2}
    model = Qwen2ForCausalLM(Qwen2Config(**ends, **sizes, **layers, initializer_range=0.4))
    spoken = [at for at, letter in enumerate(letters) if "!" <= letter <= "~"]
    silent = torch.ones(len(tokenizer), dtype=torch.bool)
    silent[[*spoken, end]] = False
    model.lm_head.weight.data[silent] = 0
    model.save_pretrained(folder)


if __name__ == "__main__":
    if find_spec("torch") is None or find_spec("transformers") is None:
        sys.exit(f"{sys.executable} has no torch or no transformers")
    _write(*sys.argv[1:])
