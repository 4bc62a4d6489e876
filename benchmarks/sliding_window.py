"""Our sliding window against MONAI's: same model, windows, weights, precision (fp32), in one run.

    pip install -r benchmarks/requirements.txt && python benchmarks/sliding_window.py

Four 512 x 512 images, windows of 128 with stride 64, uniform weights; once with the real U-Net
(width 16), once with a nearly free model, so that cutting and merging is what is measured.
"""

import time

import torch
from timing import alternate, arguments, report

from monai.inferers import sliding_window_inference

from ad.model import build_model
from ad.sliding_window import sliding_window


class Timed:
    """A predictor that adds up the time spent inside it."""

    def __init__(self, predict):
        self.predict, self.seconds = predict, 0.0

    def __call__(self, windows):
        start = time.perf_counter()
        result = self.predict(windows)
        self.seconds += time.perf_counter() - start
        return result


def main():
    args = arguments(__doc__)
    torch.manual_seed(0)
    model = build_model("unet", width=16).to(memory_format=torch.channels_last).eval()
    images = torch.rand(4, 3, 512, 512)

    def unet(windows):
        return torch.cat(list(model.anomaly_maps(windows).values()), 1)
    results = {}
    for case, predict in (("U-Net", unet), ("nearly free model", lambda w: w[:, :2])):
        timed = Timed(predict)
        functions = {
            "ours": lambda: sliding_window(images, timed, 128, 64, window_batch=16),
            "monai": lambda: sliding_window_inference(images, (128, 128), 16, timed, overlap=0.5,
                                                      mode="constant")}
        with torch.no_grad():
            torch.testing.assert_close(functions["ours"](), functions["monai"]().float(),
                                       rtol=0, atol=1e-4)
            results[case] = alternate(functions, args.runs)
            for name, function in functions.items():
                shares = []
                for _ in range(args.runs):
                    timed.seconds, start = 0.0, time.perf_counter()
                    function()
                    shares.append(timed.seconds / (time.perf_counter() - start))
                results[case][name]["share inside the model"] = sorted(shares)[len(shares) // 2]
    report(args, "sliding_window", results, ("monai",))


if __name__ == "__main__":
    main()
