#!/bin/sh
# Run the large experiments in full, one after another, and print the progress of each. A failed experiment does not stop the
# next; the exit status is 0 if all have passed.
# STEPS="chaos kit" runs some of them, in the order given. MUTATION_EVERY=9 takes every ninth mutant: an hour or two, not a day.
set -u
cd "$(dirname "$0")/.."
python=.venv/bin/python
# Some tests take more than the usual limit of 15 minutes.
export TEST_LIMIT_S=14400

run() {
    case $1 in
        properties) .venv/bin/pytest -n 2 -m hypothesis --hypothesis-profile=prove ;;
        later) $python -m tests.later.run ;;
        ledger) LEDGER_ROWS=1000000 .venv/bin/pytest -s tests/gateway/usage/test_ledger_volume.py ;;
        evidence) EVIDENCE_ROWS=1000000 .venv/bin/pytest -s tests/cli/test_evidence_volume.py ;;
        accounts) USAGE_REQUESTS=100000 .venv/bin/pytest -s tests/e2e/test_accounts.py tests/e2e/test_shared_stores.py -k every_call ;;
        quotas) QUOTA_SECONDS=60 .venv/bin/pytest -s tests/e2e/test_quota_load.py ;;
        restarts)
            ROLLING_ROUNDS=5 JUDGE_PAUSED_S=30 HANDOVERS=20 HANDOVER_RATE=200 HANDOVER_STREAM_S=60 .venv/bin/pytest -s \
                tests/e2e/test_rolling_update.py tests/e2e/test_cell.py tests/e2e/test_handover.py
            ;;
        streams) HELD_STREAMS=1000 .venv/bin/pytest tests/gateway/service/test_judged_streams.py -k memory ;;
        console) CONSOLE_COMBINATIONS=all .venv/bin/pytest tests/e2e/test_operator_console_in_browser.py -k axe ;;
        full) .venv/bin/pytest -s -m full --ignore=tests/conformance --ignore=tests/servers --ignore=tests/chaos/test_cell.py ;;
        kit) .venv/bin/pytest -n 2 -m full tests/conformance ;;
        servers) .venv/bin/pytest -s -m full tests/servers ;;
        answers) $python -m tests.evaluation.answers ;;
        chaos) $python -m tests.chaos.run ;;
        chaos-cell)
            $python -m tests.chaos.cell --seconds 7200 &&
                .venv/bin/pytest -s -m full tests/chaos/test_cell.py
            ;;
        soak) $python -m tests.soak.run ;;
        redaction)
            REDACTION_ROUNDS=50 REDACTION_PARTS=4 .venv/bin/pytest -s tests/sdks/test_redaction_harnesses.py
            ;;
        fuzz) sh tests/fuzz/run.sh ;;
        evaluation)
            $python -m tests.evaluation.run &&
                LIMIT_RUNS=40 .venv/bin/pytest tests/evaluation/test_work.py -k random_limit
            ;;
        bounds) $python -m tests.mutation.bounds ;;
        mutation) $python -m tests.mutation.run --every "${MUTATION_EVERY:-1}" ;;
        *)
            printf 'unknown step %s: known are %s\n' "$1" "$all" >&2
            return 2
            ;;
    esac
}

all='properties later ledger evidence accounts quotas restarts streams console full kit servers answers chaos chaos-cell soak redaction fuzz evaluation bounds mutation'
steps=${STEPS:-$all}
# shellcheck disable=SC2086  # a list of words
set -- $steps
count=$#
number=0
failed=''
for step; do
    number=$((number + 1))
    began=$(date +%s)
    printf '== %d of %d: %s\n' "$number" "$count" "$step"
    run "$step" || failed="$failed $step"
    printf '== %s took %d s\n' "$step" "$(($(date +%s) - began))"
done
if [ -n "$failed" ]; then
    printf '== failed:%s\n' "$failed"
    exit 1
fi
printf '== all passed: %s\n' "$steps"
