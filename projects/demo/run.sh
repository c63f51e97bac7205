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
HEAD=$DEMO/head
# The configuration of the weights that come with the package.
PRETRAINED=configs/brain_deepen_posterior.yaml
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

say "A slice of a head of 256×256, with the weights that come with the package"
# A volume that is simulated anew is predicted anew.
rm -rf "$HEAD"
python -m projects.demo.head prepare "$PRETRAINED" "$HEAD"
quietly "$HEAD/simulate.log" direct-deepen simulate "$HEAD/images" "$HEAD/data" --seed 0 --test-subjects s1045 --slices 1 \
    --coils 8 8 --noise-std 0.007 0.007 --pixel-size 0.8 0.8 --keep-band
# Few steps: the chains are in the metric of the data.
quietly "$HEAD/configure.log" direct-deepen configure "$PRETRAINED" "$HEAD/posterior.yaml" \
    model.inference.num_steps=20 --with configs/masks/2d4x.yaml
quietly "$HEAD/predict.log" direct predict "$HEAD/predicted" --cfg "$HEAD/posterior.yaml" \
    --checkpoint "$HEAD/weights.pt" --data-root "$HEAD/data/test" --seed "$SEED" $ON_CPU
quietly "$HEAD/posterior.log" direct-deepen posterior "$HEAD/predicted/s1045_000.posterior.h5" \
    --cfg "$HEAD/posterior.yaml" --data-root "$HEAD/data/test" --html "$DEMO/head.html"
python -m projects.demo.head draw "$HEAD/posterior.yaml" "$HEAD" "$DEMO/head_256.png"
echo "See $DEMO/table.md, $DEMO/comparison.png and $DEMO/posterior.png; of the slice, $DEMO/head.html and $DEMO/head_256.png"
