#!/bin/sh
# The demo, command by command: what it runs is what a user types.
set -eu
DEMO=${DEMO:-runs/demo}
SEED=${SEED:-0}
# The study reads them.
export DEMO SEED
# Threads that wait without spinning: several times faster where another program wants a core too.
export OMP_WAIT_POLICY=${OMP_WAIT_POLICY:-passive}
DATA=$DEMO/data
ON_CPU="--device cpu --num-workers 0"

say() { printf '\n== %s\n' "$*"; }
# DIRECT logs much; it goes to a file beside the run, and is shown if the command fails.
quietly() {
    log=$1
    shift
    echo "$ $*"
    "$@" >"$log" 2>&1 || { tail -n 30 "$log"; echo "failed; the whole log is $log"; exit 1; }
}

say "Phantom brains: 24 volumes for training, 3 for validation, 3 for testing, each with seeds of its own"
mkdir -p "$DEMO"
(
    direct-deepen phantom "$DATA/validation" --volumes 3 --slices 4 --size 64 --coils 8 --seed 2
    direct-deepen phantom "$DATA/test" --volumes 3 --slices 4 --size 64 --coils 8 --seed 3
) >"$DEMO/phantom.log" 2>&1 &
direct-deepen phantom "$DATA/training" --volumes 24 --slices 4 --size 64 --coils 8 --seed 1
wait $! || { cat "$DEMO/phantom.log"; exit 1; }

for method in deepen varnet; do
    say "Train $method"
    quietly "$DEMO/train_$method.log" direct train "$DEMO" --cfg "configs/demo_$method.yaml" --name "$method" \
        --training-root "$DATA/training" --validation-root "$DATA/validation" --seed "$SEED" $ON_CPU
done

say "Reconstruct the test volumes by DEEPEN, with the posterior"
quietly "$DEMO/predict_deepen.log" direct predict "$DEMO/deepen_test" --cfg configs/demo_deepen_posterior.yaml \
    --checkpoint "$DEMO/deepen/model_449.pt" --data-root "$DATA/test" --seed "$SEED" $ON_CPU

say "Compare with VarNet and classical methods"
# A run that is done would not be repeated, and its weights may have been others.
rm -rf "$DEMO/runs"
direct-deepen benchmark "$DEMO" --study projects/demo/study.yaml
echo "See $DEMO/table.md, $DEMO/comparison.png and $DEMO/posterior.png"
