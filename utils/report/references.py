"""A text that cites works, as "Efron 1979" -> their list of references, with a DOI where a work has one."""

import re

WORKS = {  # by the words that cite it
    "Belloni, Chernozhukov and Hansen 2014": (
        "Belloni A, Chernozhukov V, Hansen C (2014). Inference on treatment effects after selection among "
        "high-dimensional controls. Review of Economic Studies 81:608-650. doi:10.1093/restud/rdt044"
    ),
    "Craddock et al. 2012": (
        "Craddock RC, James GA, Holtzheimer PE, Hu XP, Mayberg HS (2012). A whole brain fMRI atlas generated via "
        "spatially constrained spectral clustering. Human Brain Mapping 33:1914-1928. doi:10.1002/hbm.21333"
    ),
    "Di Martino et al. 2014": (
        "Di Martino A, Yan CG, Li Q, et al. (2014). The autism brain imaging data exchange: towards a large-scale "
        "evaluation of the intrinsic brain architecture in autism. Molecular Psychiatry 19:659-667. "
        "doi:10.1038/mp.2013.78"
    ),
    "Efron 1979": (
        "Efron B (1979). Bootstrap methods: another look at the jackknife. Annals of Statistics 7:1-26. "
        "doi:10.1214/aos/1176344552"
    ),
    "Filippini et al. 2009": (
        "Filippini N, MacIntosh BJ, Hough MG, et al. (2009). Distinct patterns of brain activity in young carriers of"
        " the APOE-epsilon4 allele. PNAS 106:7209-7214. doi:10.1073/pnas.0811879106"
    ),
    "Kingma and Ba 2014": (
        "Kingma DP, Ba J (2014). Adam: a method for stochastic optimization. doi:10.48550/arXiv.1412.6980"
    ),
    "MacKinnon and White 1985": (
        "MacKinnon JG, White H (1985). Some heteroskedasticity-consistent covariance matrix estimators with improved "
        "finite sample properties. Journal of Econometrics 29:305-325. doi:10.1016/0304-4076(85)90158-7"
    ),
    "Nadeau and Bengio 2003": (
        "Nadeau C, Bengio Y (2003). Inference for the generalization error. Machine Learning 52:239-281. "
        "doi:10.1023/A:1024068626366"
    ),
    "Platt 1999": (
        "Platt JC (1999). Probabilistic outputs for support vector machines and comparisons to regularized likelihood"
        " methods. In: Advances in Large Margin Classifiers. MIT Press, 61-74"
    ),
    "Schaefer et al. 2018": (
        "Schaefer A, Kong R, Gordon EM, et al. (2018). Local-global parcellation of the human cerebral cortex from "
        "intrinsic functional connectivity MRI. Cerebral Cortex 28:3095-3114. doi:10.1093/cercor/bhx179"
    ),
    "Shah and Peters 2020": (
        "Shah RD, Peters J (2020). The hardness of conditional independence testing and the generalised covariance "
        "measure. Annals of Statistics 48:1514-1538. doi:10.1214/19-AOS1857"
    ),
    "Tomasi and Volkow 2010": (
        "Tomasi D, Volkow ND (2010). Functional connectivity density mapping. PNAS 107:9885-9890. "
        "doi:10.1073/pnas.1001414107"
    ),
    "Tzourio-Mazoyer et al. 2002": (
        "Tzourio-Mazoyer N, Landeau B, Papathanassiou D, et al. (2002). Automated anatomical labeling of activations "
        "in SPM using a macroscopic anatomical parcellation of the MNI MRI single-subject brain. NeuroImage "
        "15:273-289. doi:10.1006/nimg.2001.0978"
    ),
    "Vovk, Gammerman and Shafer 2005": (
        "Vovk V, Gammerman A, Shafer G (2005). Algorithmic learning in a random world. Springer. doi:10.1007/b106715"
    ),
    "Zang et al. 2004": (
        "Zang Y, Jiang T, Lu Y, He Y, Tian L (2004). Regional homogeneity approach to fMRI data analysis. NeuroImage "
        "22:394-400. doi:10.1016/j.neuroimage.2003.12.030"
    ),
    "Zang et al. 2007": (
        "Zang YF, He Y, Zhu CZ, et al. (2007). Altered baseline brain activity in children with ADHD revealed by "
        "resting-state functional MRI. Brain and Development 29:83-91. doi:10.1016/j.braindev.2006.07.002"
    ),
    "Zou et al. 2008": (
        "Zou QH, Zhu CZ, Yang Y, et al. (2008). An improved approach to detection of amplitude of low-frequency "
        "fluctuation (ALFF) for resting-state fMRI: fractional ALFF. Journal of Neuroscience Methods 172:137-141. "
        "doi:10.1016/j.jneumeth.2008.04.012"
    ),
    "Zuo et al. 2010": (
        "Zuo XN, Kelly C, Di Martino A, et al. (2010). Growing together and growing apart: regional and sex "
        "differences in the lifespan developmental trajectories of functional homotopy. Journal of Neuroscience "
        "30:15034-15043. doi:10.1523/JNEUROSCI.2612-10.2010"
    ),
    "Zuo et al. 2012": (
        "Zuo XN, Ehmke R, Mennes M, et al. (2012). Network centrality in the human functional connectome. Cerebral "
        "Cortex 22:1862-1875. doi:10.1093/cercor/bhr269"
    ),
}
MEASURES = {  # of maps, by the beginning of their names: the work that defines it
    "alff": "Zang et al. 2007",
    "degree": "Zuo et al. 2012",
    "dual_regression": "Filippini et al. 2009",
    "eigenvector": "Zuo et al. 2012",
    "falff": "Zou et al. 2008",
    "lfcd": "Tomasi and Volkow 2010",
    "reho": "Zang et al. 2004",
    "vmhc": "Zuo et al. 2010",
}
PARCELS = {  # of connectomes, by a pattern of what is in their names; AAL2 and AAL3 are other atlases
    "aal(?![23])": "Tzourio-Mazoyer et al. 2002",
    "cc200": "Craddock et al. 2012",
    "cc400": "Craddock et al. 2012",
    "schaefer": "Schaefer et al. 2018",
}


def references(text: str) -> list[str]:
    """The entries of the works that the text cites, in the order of their authors."""
    return [entry for words, entry in WORKS.items() if words in text]


def of_maps(names: list[str]) -> list[str]:
    """Of the maps with these names, such as `reho`: each measure and the work that defines it."""
    return [f"{name}, {work}" for name, work in MEASURES.items() if any(map_.startswith(name) for map_ in names)]


def of_parcels(series: str) -> str:
    """The work that defines the parcels of a series, such as `rois_cc200`; empty if it is not known."""
    return next((work for name, work in PARCELS.items() if re.search(name, series.lower())), "")
