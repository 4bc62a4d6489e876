"""Cells of the tables in Traditional Chinese, for REPORT.zh-TW.md; others stay as they are."""

TRANSLATED = {
    # Quality
    "image AUROC": "影像 AUROC", "memory without weights": "不用權重的記憶庫",
    "memory with Lite0": "Lite0 記憶庫", "vote of the first two": "前兩者投票",
    "vote of all three": "三者投票",
    "three papers": "三種紙", "demo carpet": "demo 地毯 carpet", "demo grid": "demo 格網 grid",
    "demo tablet": "demo 藥錠 tablet", "demo bolt": "demo 螺栓 bolt",
    "mean of the sets": "各資料集平均",
    "minus the U-Net, 95 % interval by set": "減去 U-Net，95 % 區間（逐資料集）",
    # F1 and AUC
    "share of anomalous images": "異常影像比例", "best F1": "最佳 F1", "its threshold": "其門檻",
    "F1 at the threshold chosen on 40%": "沿用在 40% 時選定門檻的 F1",
    # Variational autoencoders
    "parameters, millions": "參數量（百萬）", "learning rate, epochs": "學習率、週期數",
    "TPR / TNR, best accuracy": "TPR / TNR（最佳準確率）",
    "TPR / TNR, midpoint": "TPR / TNR（中點）",
    "the report's TPR / TNR": "原報告的 TPR / TNR", "epochs, training": "週期數、訓練時間",
    "test AUROC": "測試 AUROC", "accuracy": "準確率", "mean": "平均", "training": "訓練時間",
    "toothbrush, resnet18, random": "toothbrush, resnet18，隨機權重",
    "toothbrush, vit_b_16, random": "toothbrush, vit_b_16，隨機權重",
    "transistor, resnet18, random": "transistor, resnet18，隨機權重",
    "separate: AUROC": "分開：AUROC", "merged: AUROC": "合併：AUROC",
    "all called defective": "全判為瑕疵", "weighted by images": "依影像數加權",
    "gain over all defective": "比全判為瑕疵多",
    # Classifiers
    "stopped at epoch": "停止週期", "converged at": "收斂週期", "final loss": "最終損失",
    "parameters": "參數量", "best validation accuracy": "最佳驗證準確率",
    "test accuracy": "測試準確率", "balanced": "平衡準確率",
    "AUROC, good against defect": "AUROC（良品對瑕疵）",
    "transistor, resnet, from scratch": "transistor, resnet，從頭訓練",
    "transistor, efficientnet_lite0, from scratch": "transistor, efficientnet_lite0，從頭訓練",
    "transistor, efficientnet_lite0, ImageNet": "transistor, efficientnet_lite0，ImageNet",
    "transistor, the same, `--freeze`": "transistor，同上，`--freeze`"}
