"""What both codes do: the name of a step -> its commands, a line each.

`run` is run.py, other first words are modules. Each step works in a folder of its own, beside those of the others and
`inputs`. What it compares lies in folders that are named here, so that both sides name them alike.
"""

from dataclasses import dataclass

FEW = "--set batch_size=8 --numIters 5"
ONE = f"--set members=1 {FEW}"
COHORT = "--dataDir ../convert/cohort --chkPointDir ckpt"
FULL = "--dataDir ../convert/full --chkPointDir ckpt"
NN, AE, CNN, MMNN = (f"--model {model} {COHORT}" for model in ("nn", "ae", "cnn", "mmnn"))
CAE = f"--model cae {FULL}"
REGIONS = f"{MMNN} --preset regions"
RESIDUAL = "--model cnn --preset residual --dataDir ../convert/cohort --chkPointDir residual"
TINY = "--set filters=2,3 --set kernels=3,3 --set strides=3,2 --set pools=0,0"
OF_REAL = "--model mmnn --preset regions --dataDir cohort --chkPointDir ckpt --folds 2"
DENSE = "--model nn --dataDir ../convert/cohort --chkPointDir dense"
MADE = "--maps falff,alff --connectome rois_made --parcels ../inputs/parcels.nii.gz"
GROUPS = "--labelColumn group --positive A --phenotype ''"
MAPS = "falff,alff,reho,degree_weighted,eigenvector_weighted,vmhc"


@dataclass(frozen=True)
class Step:
    """The commands of this code, and those of the earlier one where they are called otherwise."""

    commands: str
    earlier: str = ""

    def of(self, base: bool) -> list[str]:
        text = self.earlier if base and self.earlier else self.commands
        return [line.strip() for line in text.strip().splitlines()]


REAL, FIRST = "real", "convert"  # needs people of the user's; is done before all others, which use its cohorts
STEPS = {
    FIRST: Step(f"""
        data convert ../inputs/lab cohort --grid reduced {MADE}
        data convert ../inputs/new like --like cohort
        data convert ../inputs/lab some --grid reduced --where 'AGE_AT_SCAN < 30' --phenotype iq,hand --exclude 50003
        data convert ../inputs/lab kept --grid reduced --keepSplit some --seed 1
        data convert ../inputs/few full
        data pack cohort packed --zip
        data pack packed files --bin
        data swap cohort swapped --copies 1 --regions 5
        """),
    "derive": Step(f"""
        data derive ../inputs/bold maps --maps {MAPS} --series ../inputs/parcels.nii.gz
        data derive ../inputs/bold smooth --band 0.02,0.08 --smooth 6 --confounds scrubbing-6
        data convert maps cohort --grid reduced --maps all --connectome seg-parcels {GROUPS}
        """),
    "nn": Step(f"""
        run --train {NN} {ONE} --outDir train
        run --test {NN} --outDir test
        """),
    "ae": Step(f"""
        run --train {AE} --folds SEX {FEW} --outDir train
        run --test {AE} --folds SEX --outDir test
        """),
    "cae": Step(f"""
        run --train {CAE} --set batch_size=2 --numIters 3 --outDir train
        run --test {CAE} --outDir test
        run {CAE} --outDir reduced
        """),
    "cnn": Step(f"""
        run --train {CNN} {ONE} --outDir train
        run --test {CNN} --outDir test
        run --train {RESIDUAL} {TINY} {FEW} --outDir residual-train
        run --test {RESIDUAL} --outDir residual-test
        run --blackout {RESIDUAL} --outDir residual-blackout --donors 2
        """),
    "mmnn": Step(f"""
        run --train {MMNN} {ONE} --outDir train
        run --test {MMNN} --outDir test
        run --blackout {MMNN} --outDir blackout --donors 2 --verify 2
        """),
    "blackout": Step(f"""
        run --train {REGIONS} --folds 2 {ONE} --outDir train
        run --test {REGIONS} --folds 2 --outDir test
        run --blackout {REGIONS} --folds 2 --donors 2 --outDir blackout
        """),
    "folds": Step(f"""
        run --train {NN} --folds 3 {ONE} --outDir train
        run --test {NN} --folds 3 --outDir test
        run --train {DENSE} --folds 3 --jobs 2 --set members=2 {FEW} --outDir dense-train
        run --test {DENSE} --folds 3 --jobs 2 --outDir dense-test
        utils.compare test dense-test --outDir compare
        """),
    "repeats": Step(f"""
        run --train {CNN} --preset regions --folds 2 --repeats 2 {ONE} --outDir train
        run --test {CNN} --preset regions --folds 2 --repeats 2 --outDir test
        """),
    "bundle": Step(f"""
        run --train {REGIONS} --everybody {ONE} --outDir everybody
        utils.bundle ckpt/mmnn/everybody one.zip
        data convert ../inputs/new new --like one.zip
        run --test --bundle one.zip --dataDir new --outDir of-new
        run --blackout --bundle one.zip --dataDir new --outDir blackout-of-new --donors 2
        """),
    "choose": Step(
        f"""
        run --train {NN} --folds 2 --choose ../inputs/candidates.txt --numIters 5 --outDir train
        run --test {NN} --folds 2 --outDir test
        """,
        f"""
        run --train {NN} --folds 2 --choose ../inputs/candidates.txt --numIters 5 --outDir train
        run --test {NN} --folds 2 --choose ../inputs/candidates.txt --outDir test
        """,
    ),
    "permutations": Step(f"""
        run --train {NN} --folds 2 {ONE} --outDir train
        run --test {NN} --folds 2 --permutations 2 --outDir test
        """),
    REAL: Step(f"""
        data convert ../maps cohort --grid reduced --maps falff,alff --connectome rois_cc200
        run --train {OF_REAL} {ONE} --outDir train
        run --test {OF_REAL} --outDir test
        run --blackout {OF_REAL} --donors 2 --outDir blackout
        """),
}
