"""What `unchanged.py` does with the code of both sides: the name of a step -> its commands.

A command a line: `run` is run.py, the others are modules. Before it stands the exit status that it must have, if not 0,
or `?` for any. Each step works in a folder of its own, beside the cohorts, which it must leave as they are. A step
called `later-<step>` begins with a copy of what the earlier commit left in that step.
"""

import shlex

from helpers import TINY_CNN

LATER = "later-"
CANDIDATES = "--set members=1 --set batch_size=8\n--set members=1 --set batch_size=4\n"

AT = "--dataDir ../cohort --chkPointDir ckpt"
FULL = "--dataDir ../full --chkPointDir ckpt"
LAB = "--dataDir cohort --chkPointDir ckpt"
NN, AE, CNN, MMNN = (f"--model {model} {AT}" for model in ("nn", "ae", "cnn", "mmnn"))
CAE = f"--model cae {FULL}"
SMALL = "--set batch_size=8 --numIters 6"
ONE = f"--set members=1 {SMALL}"
LONGER = "--set members=1 --set batch_size=8 --numIters 10"
RESIDUAL = "--model cnn --dataDir ../cohort --chkPointDir residual"
TINY_RESIDUAL = shlex.join((*TINY_CNN, "--set", "batch_size=8", "--numIters", "6"))
OTHER = "--model nn --set learning_rate=0.001 --dataDir ../cohort --chkPointDir default"
PERSON = "--maps falff=../new/cpac/X_0060002_falff.nii.gz --phenotype AGE_AT_SCAN=12,SEX=1"
GROUPS = "--labelColumn group --positive A --phenotype ''"
MAPS = "falff,alff,reho,degree_weighted,eigenvector_weighted,vmhc"

MADE = {  # of cohorts that are made up here
    "data": """
        data pack ../cohort packed --zip
        ? data check packed --html check.html
        data pack packed hdf5 --hdf5
        data pack hdf5 files --bin
        ? data check hdf5
        data swap ../cohort swapped --copies 1 --regions 5
        data export ../cohort 0000001 one.nii.gz
        2 data check missing
        2 data pack ../cohort packed --zip
        """,
    "convert": """
        ? data convert ../lab cohort --grid reduced
        ? data check cohort --html check.html
        ? data convert ../lab some --grid reduced --exclude 50002,50003 --where 'AGE_AT_SCAN < 30' --phenotype iq,hand
        ? data convert ../new like --like cohort
        ? data convert ../pcp pcp
        2 data convert ../lab cohort --grid full
        2 data convert ../lab leak --phenotype DX_GROUP
        """,
    "derive": f"""
        data derive ../bold maps --maps {MAPS} --series ../four.nii.gz
        ? data convert maps cohort --grid reduced --maps all --connectome seg-four {GROUPS}
        2 data derive ../bold maps --maps falff,other
        """,
    "demo": f"""
        run --train --model nn --chkPointDir ckpt {ONE}
        run --test --model nn --chkPointDir ckpt
        """,
    "cae": f"""
        run --train {CAE} --set batch_size=2 --numIters 4
        run --test {CAE}
        run {CAE} --outDir reduced
        run --train --model cnn --dataDir reduced --chkPointDir ckpt {ONE}
        run --test --model cnn --dataDir reduced --chkPointDir ckpt
        run --train {CAE} --set batch_size=2 --numIters 2 --folds 2
        run {CAE} --folds 2 --outDir reduced-folds
        run --test {CAE} --folds 2
        """,
    "bundle": f"""
        ? data convert ../lab cohort --grid reduced
        run --train --model nn {LAB} --folds 3 {ONE}
        run --test --model nn {LAB} --folds 3
        run --train --model nn {LAB} --everybody --score results/nn-test-folds-3
        utils.bundle ckpt/nn/everybody one.zip --licence CC-BY-4.0
        utils.bundle ckpt/nn/folds-3 folds.zip --score results/nn-test-folds-3
        ? data convert ../new new --like one.zip
        run --test --bundle one.zip --dataDir new --outDir of-one --prevalence 0.01
        ? data convert ../new new-folds --like folds.zip
        run --test --bundle folds.zip --dataDir new-folds --outDir of-folds
        utils.predict one.zip {PERSON}
        2 run --test --model nn {LAB} --everybody
        """,
    "later-cae": f"""
        run --test {CAE} --outDir again
        run {CAE} --outDir reduced-again
        run --train {CAE} --set batch_size=2 --numIters 6
        """,
    "later-bundle": f"""
        run --test --model nn {LAB} --folds 3
        run --test --bundle one.zip --dataDir new --outDir again
        run --test --bundle folds.zip --dataDir new-folds --outDir again-folds
        utils.bundle ckpt/nn/everybody again.zip
        utils.predict folds.zip {PERSON} --outDir again-predict
        run --test --model nn --dataDir new --chkPointDir ckpt --everybody --outDir again-everybody
        """,
    "later-data": """
        ? data check packed
        ? data check hdf5
        data pack swapped again --zip
        """,
    "later-convert": """
        ? data convert ../new again --like cohort
        ? data check cohort
        """,
    "later-derive": """
        data derive ../bold again --like cohort
        2 data convert maps like --like cohort
        """,
}
ANY = {  # of any reduced cohort
    "nn": f"""
        run --train {NN} {ONE}
        run --test {NN}
        2 run --blackout {NN}
        2 run --test {NN} --set learning_rate=0.001
        2 run --test {NN} --numIters 8
        2 run --train {NN} --wrong 1
        """,
    "ae": f"""
        run --train {AE} {SMALL}
        run --test {AE}
        """,
    "cnn": f"""
        run --train {CNN} --preset regions {ONE}
        run --test {CNN} --preset regions
        run --blackout {CNN} --preset regions --verify 3 --donors 2
        run --train {RESIDUAL} {TINY_RESIDUAL} --outDir residual-train
        run --test {RESIDUAL} --outDir residual-test
        run --blackout {RESIDUAL} --outDir residual-blackout --verify 3 --donors 2
        """,
    "mmnn": f"""
        run --train {MMNN} {ONE}
        run --test {MMNN}
        run --blackout {MMNN} --verify 2 --donors 2
        """,
    "folds": f"""
        run --train {NN} --folds 3 {ONE}
        run --test {NN} --folds 3
        run --train {OTHER} --folds 3 {ONE} --outDir default-train
        run --test {OTHER} --folds 3 --outDir default-test
        utils.compare results/nn-test-folds-3 default-test
        utils.report default-test --prevalence 0.1
        """,
    "fold": f"""
        run --train {MMNN} --preset regions --folds 2 --fold 1 {ONE}
        run --train {MMNN} --preset regions --folds 2 {ONE}
        run --test {MMNN} --preset regions --folds 2 --fold 0
        run --test {MMNN} --preset regions --folds 2
        run --blackout {MMNN} --preset regions --folds 2 --donors 2
        """,
    "values": f"""
        run --train {AE} --folds SEX {SMALL}
        run --test {AE} --folds SEX
        """,
    "repeats": f"""
        run --train {CNN} --preset regions --folds 2 --repeats 2 {ONE}
        run --test {CNN} --preset regions --folds 2 --repeats 2
        run --blackout {CNN} --preset regions --folds 2 --repeats 2 --donors 2
        """,
    "jobs": f"""
        run --train {NN} --folds 2 --jobs 2 {ONE}
        run --test {NN} --folds 2 --jobs 2
        """,
    "choice": f"""
        run --train {NN} --folds 3 --choose candidates.txt --numIters 6
        run --test {NN} --folds 3 --choose candidates.txt
        """,
    "permutations": f"""
        run --train {NN} --folds 2 {ONE}
        run --test {NN} --folds 2 --permutations 2
        """,
    "later-nn": f"""
        run --test {NN}
        run --test {NN} --outDir again
        run --train {NN} {LONGER}
        """,
    "later-ae": f"""
        run --test {AE} --outDir again
        run --train {AE} --set batch_size=8 --numIters 10
        """,
    "later-cnn": f"""
        run --test {CNN} --preset regions --outDir again
        run --train {CNN} --preset regions {LONGER}
        """,
    "later-mmnn": f"""
        run --test {MMNN} --outDir again
        run --blackout {MMNN} --outDir again-blackout --donors 2
        run --train {MMNN} {LONGER}
        """,
    "later-fold": f"""
        run --test {MMNN} --preset regions --folds 2
        run --blackout {MMNN} --preset regions --folds 2 --donors 2
        run --test {MMNN} --preset regions --folds 2 --outDir again
        """,
    "later-folds": f"""
        run --train {NN} --folds 3 {ONE}
        run --test {NN} --folds 3
        run --test {NN} --folds 3 --outDir again
        utils.compare results/nn-test-folds-3 default-test --outDir again-compare
        utils.report results/nn-test-folds-3
        """,
    "later-repeats": f"""
        run --test {CNN} --preset regions --folds 2 --repeats 2
        run --blackout {CNN} --preset regions --folds 2 --repeats 2 --donors 2
        run --train {CNN} --preset regions --folds 2 --repeats 3 {ONE}
        """,
    "later-choice": f"""
        run --train {NN} --folds 3 --choose candidates.txt --numIters 6
        run --test {NN} --folds 3 --choose candidates.txt --outDir again
        """,
    "later-permutations": f"""
        run --test {NN} --folds 2 --permutations 3
        """,
}
STEPS = MADE | ANY


def commands_of(step: str) -> list[tuple[str, tuple[str, ...]]]:
    """The exit status that is wanted, and the words, of each command."""
    lines = [tuple(shlex.split(line)) for line in STEPS[step].strip().splitlines()]
    return [(words[0], words[1:]) if words[0] in ("?", "2") else ("0", words) for words in lines]
