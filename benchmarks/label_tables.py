"""Tables about variational autoencoders, classifiers, and metrics: see tables.py."""

from cells import minutes, ranged, rates, text
from charts import SHARES, at_share
from run_tables import memory_mean

WELLS = {"linear": ("linear_vae", "1e-3, 150", "0.95 / 0.75"),
         "small": ("small_conv_vae", "3e-4, 200", "0.82 / 0.84"),
         "big": ("big_conv_vae", "3e-4, 100", "0.79 / 0.84")}


def wells(records):
    rows = [["", "parameters, millions", "learning rate, epochs", "training", "AUROC",
             "TPR / TNR, best accuracy", "accuracy", "TPR / TNR, midpoint",
             "the report's TPR / TNR"]]
    for name, (title, recipe, reported) in WELLS.items():
        found = records[f"wells/vae-{name}"]
        middle = records["wells-midpoint"]["categories"][f"wells/vae-{name}"]
        rows.append([title, text(found["parameters"] / 1e6, 1), recipe, minutes([found]),
                     ranged(found["test"]), rates(found["test"]),
                     text(found["test"]["accuracy"]), rates(middle), reported])
    return rows


def encoders(records):
    rows = [["", "epochs, training", "test AUROC", "accuracy"]]
    for name, title in (("toothbrush/vae-cnn", "toothbrush, cnn"),
                        ("toothbrush/vae-resnet18", "toothbrush, resnet18, random"),
                        ("toothbrush/vae-vit", "toothbrush, vit_b_16, random"),
                        ("transistor/vae-cnn", "transistor, cnn"),
                        ("transistor/vae-resnet18", "transistor, resnet18, random"),
                        ("transistor/vae-cnn-lr5e-3", "transistor, cnn, `--lr 5e-3`"),
                        ("transistor/vae-cnn-lr5e-5", "transistor, cnn, `--lr 5e-5`")):
        r = records[name]
        rows.append([title, f"{r['stopped at epoch']}, {minutes([r])}", ranged(r["test"]),
                     text(r["test"]["accuracy"])])
    return rows


def merged(records):
    found = records["merged"]
    parts = found["categories"]
    rows = [["", "separate: AUROC", "accuracy", "merged: AUROC", "accuracy",
             "all called defective"]]
    for c in ("toothbrush", "transistor"):
        rows.append([c, *(cell for k in (c, f"toothbrush+transistor/{c}")
                          for cell in (ranged(parts[k]), text(parts[k]["accuracy"]))),
                     text(parts[c]["anomalous"] / parts[c]["images"])])
    for kind in ("mean", "weighted mean"):
        nothing = found[f"{kind}, all anomalous"]["accuracy"]
        own, both = (found[f"{kind}, {k}"] for k in ("separate", "merged"))
        rows.append(["mean" if kind == "mean" else "weighted by images", *(
            text(r[m]) for r in (own, both) for m in ("auroc", "accuracy")), text(nothing)])
        rows.append(["gain over all defective", "", *(cell for r in (own, both) for cell in (
            f"{r['accuracy'] - nothing:+.3f}", ""))][:5] + [""])
    return rows


CLASSES = {"transistor-classes/resnet": "transistor, resnet, from scratch",
           "transistor-classes/lite0-scratch": "transistor, efficientnet_lite0, from scratch",
           "transistor-classes/lite0-pretrained": "transistor, efficientnet_lite0, ImageNet",
           "transistor-classes/lite0-frozen": "transistor, the same, `--freeze`",
           "tablet-classes/resnet": "tablet, resnet, from scratch",
           "tablet-classes/lite0-pretrained": "tablet, efficientnet_lite0, ImageNet",
           "carpet-classes/resnet": "carpet, resnet, from scratch",
           "grid-classes/resnet": "grid, resnet, from scratch"}


def labelled(result):
    """ranged of a classifier's test.json: defects against good."""
    counts = {name: int(found["images"]) for name, found in result["classes"].items()}
    total = sum(counts.values())
    return ranged({"auroc": result["auroc"], "images": total, "anomalous": total - counts["good"]})


def classes(records, names=list(CLASSES)[:4]):
    """The classifiers of the transistor; those of the demo: classes_demo."""
    rows = [["", "stopped at epoch", "converged at", "training", "final loss", "parameters",
             "best validation accuracy", "test accuracy", "balanced",
             "AUROC, good against defect"]]
    for name in names:
        r, title = records[name], CLASSES[name]
        rows.append([title, str(r["stopped at epoch"]), str(r["converged at epoch"]),
                     f"{r['training, s']:.0f} s", text(r["final training loss"]),
                     f"{r['parameters'] / 1e6:.1f} M", text(r["best validation accuracy"]),
                     *(text(r["test"][k]) for k in ("accuracy", "balanced_accuracy")),
                     labelled(r["test"])])
    return rows


def classes_demo(records):
    return classes(records, list(CLASSES)[4:])


def labels(records):
    rows = [["transistor as five classes (63 test images)", "test accuracy", "balanced", "AUROC"]]
    for name, title in list(CLASSES.items())[:4]:
        rows.append([title.removeprefix("transistor, "), *(
            text(records[name]["test"][k]) for k in ("accuracy", "balanced_accuracy")),
                     labelled(records[name]["test"])])
    return rows + [["a memory of gradients, which has seen no defect (all 100 test images)", "", "",
                    ranged({"auroc": memory_mean("transistor", "gradients"), "images": 100,
                            "anomalous": 40})]]


def f1_and_auc(records):
    """What happens to F1 when the share of anomalous images changes, and nothing else."""
    found = [at_share(records["example"], share) for share in SHARES]
    return [["share of anomalous images", *(f"{share:.0%}" for share in SHARES)]] + [
        [kind, *(text(f[kind]) for f in found)] for kind in found[0]]
