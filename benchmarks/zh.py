"""Cells of the tables in Traditional Chinese, for REPORT.zh-TW.md; others stay as they are."""

TRANSLATED = {
    # Columns
    "`--objective repair`, mean of the seeds": "`--objective repair`，種子平均",
    "data": "資料", "image AUROC": "影像 AUROC", "best F1": "最佳 F1", "pixel AUROC": "像素 AUROC",
    "epochs; best": "週期數；最佳週期", "training": "訓練時間", "mean": "平均",
    "mean, pseudo": "偽異常平均", "mean, test": "測試平均",
    "accuracy": "準確率",
    "options of `--model patchcore`": "`--model patchcore` 的選項",
    "windows, resized to": "視窗，縮放至",
    "rank correlation with the test AUROC": "與測試 AUROC 的等級相關",
    "share of anomalous images": "異常影像比例",
    # Data
    "demo carpet": "demo 地毯 carpet", "demo grid": "demo 格網 grid",
    "demo tablet": "demo 藥錠 tablet",
    # Methods
    "memory of gradients": "梯度記憶庫",
    "U-Net (repair), mean of the seeds": "U-Net（修復），種子平均",
    "`--objective reconstruct`, scored by position": "`--objective reconstruct`，依位置計分",
    "the same, the homework plan's one mean and standard deviation":
        "同上，但全圖單一平均與標準差（最初方案）",
    "published, at full data and GPU budgets: RIAD": "論文數字（完整資料與 GPU）：RIAD",
    "PatchCore (ImageNet weights)": "PatchCore（ImageNet 權重）",
    "`(defaults)`": "`（預設）`",
    "default: cosine, augmentation": "預設：餘弦排程、資料增強",
    "moving average of the weights": "權重移動平均",
    "all pseudo-anomalies": "全部偽異常", "CutPaste patches": "CutPaste 貼片",
    "texture damage": "紋理破壞",
    # Votes
    "grid": "grid（MVTec）", "papers": "三種紙，各", "both, weights 0.5 each": "兩者，權重各 0.5",
    # F1 and AUC
    "its threshold": "其門檻",
    "F1 at the threshold chosen on 40%": "沿用在 40% 時選定門檻的 F1",
    # Variational autoencoders
    "parameters, millions": "參數量（百萬）", "learning rate, epochs": "學習率、週期數",
    "TPR / TNR, best accuracy": "TPR / TNR（最佳準確率）",
    "TPR / TNR, midpoint": "TPR / TNR（中點）",
    "the report's TPR / TNR": "原報告的 TPR / TNR", "epochs, training": "週期數、訓練時間",
    "pseudo": "偽異常", "test AUROC": "測試 AUROC",
    "toothbrush, resnet18, random": "toothbrush, resnet18，隨機權重",
    "toothbrush, vit_b_16, random": "toothbrush, vit_b_16，隨機權重",
    "transistor, resnet18, random": "transistor, resnet18，隨機權重",
    "separate: AUROC": "分開：AUROC", "merged: AUROC": "合併：AUROC",
    "all called defective": "全判為瑕疵", "weighted by images": "依影像數加權",
    "gain over that": "相對增益",
    # Classifiers
    "stopped at epoch": "停止週期", "converged at": "收斂週期", "final loss": "最終損失",
    "parameters": "參數量", "best validation accuracy": "最佳驗證準確率",
    "test accuracy": "測試準確率",
    "balanced": "平衡準確率", "AUROC, good against defect": "AUROC（良品對瑕疵）",
    "transistor, resnet, from scratch": "transistor, resnet，從頭訓練",
    "transistor, efficientnet_lite0, from scratch": "transistor, efficientnet_lite0，從頭訓練",
    "transistor, efficientnet_lite0, ImageNet": "transistor, efficientnet_lite0，ImageNet",
    "transistor, the same, `--freeze`": "transistor，同上，`--freeze`",
    "tablet, resnet, from scratch": "tablet, resnet，從頭訓練",
    "tablet, efficientnet_lite0, ImageNet": "tablet, efficientnet_lite0，ImageNet",
    "carpet, resnet, from scratch": "carpet, resnet，從頭訓練",
    "grid, resnet, from scratch": "grid, resnet，從頭訓練",
    # Collapse check
    "contrast": "對比", "variety": "變化", "sharpness": "銳利度", "copied": "複製程度",
    "trace": "痕跡",
    "verdict": "判定",
    "healthy: it changes what is strange and keeps what is normal":
        "健康：改變異常之處，保留正常之處",
    "identity shortcut: defects are copied and leave no error":
        "恆等捷徑：瑕疵被複製，不留誤差"} | {
    f"{category}, {kind}: {score}": f"{category}，{word}：{text}"
    for category in ("transistor", "toothbrush", "carpet")
    for kind, word in (("global", "全域"), ("auto", "自動"))
    for score, text in (("pseudo", "偽異常"), ("test", "測試"))} | {
    f"{category}: {score}": f"{category}：{text}"
    for category in ("transistor", "toothbrush", "carpet")
    for score, text in (("pseudo", "偽異常"), ("test", "測試"), ("pixels", "像素"))}
