"""The papers' tables, transcribed here so that the package's catalogue is never what it is tested against.

Richardson, Srikumar, Sabharwal 2025, arXiv:2412.17696, and what follows from their lattice figure.
"""

# name, column over TT TF FT FF, P, P_C, P_A, top, bottom
LOSSES = [
    ("CEUnl", "xvxx", "w & ~l", "true", "false", "w*(1-l)", "1-w*(1-l)"),
    ("CE", "vvxx", "w", "true", "false", "w", "1-w"),
    ("ORPO", "ovxo", "l -> w", "w ^ l", "false", "w*(1-l)", "l*(1-w)"),
    ("CPO", "bvxo", "l -> w", "l | w", "w & l", "w", "l"),
    ("unCPO", "vvxv", "l -> w", "true", "false", "1-l*(1-w)", "l*(1-w)"),
    ("cCPO", "vvxo", "l -> w", "l | w", "false", "w", "l*(1-w)"),
    ("fUNL", "xvxv", "~l", "true", "false", "1-l", "l"),
    ("cUNL", "xvxo", "~l", "l | w", "false", "w*(1-l)", "l"),
    ("cfUNL", "ovxv", "l -> w", "~(l & w)", "false", "1-l", "l*(1-w)"),
    ("qfUNL", "ovxb", "l -> w", "~(l & w)", "~w & ~l", "1-l", "1-w"),
    ("l20", "xvxb", "~l", "true", "~w & ~l", "1-l", "1-w*(1-l)"),
    ("sCE", "bvxx", "w", "true", "w & l", "w", "1-w*(1-l)"),
    ("l3", "ovxx", "w", "~(l & w)", "false", "w*(1-l)", "1-w"),
    ("bCPO", "vvxb", "l -> w", "true", "~w & ~l", "1-l*(1-w)", "1-w"),
    ("l14", "bvxv", "l -> w", "true", "w & l", "1-l*(1-w)", "l"),
    ("l5", "bvxb", "l -> w", "true", "w <-> l", "1-l*(1-w)", "1-w*(1-l)"),
]

EDGES = {
    (low, high)
    for low, highs in {
        "CEUnl": "cUNL l20 sCE l3",
        "l20": "qfUNL fUNL l5",
        "cUNL": "fUNL ORPO CPO",
        "sCE": "CE CPO l5",
        "l3": "CE ORPO qfUNL",
        "qfUNL": "bCPO cfUNL",
        "fUNL": "cfUNL l14",
        "ORPO": "cfUNL cCPO",
        "CPO": "cCPO l14",
        "l5": "bCPO l14",
        "CE": "bCPO cCPO",
        "bCPO": "unCPO",
        "cfUNL": "unCPO",
        "cCPO": "unCPO",
        "l14": "unCPO",
    }.items()
    for high in highs.split()
}
