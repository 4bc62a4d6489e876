"""Other models than the U-Net: the memory of normal features, also that of a U-Net's features, with
gradients or pretrained networks; variational autoencoders; classifiers; and their export."""

from ad import lazy

__getattr__ = lazy(__name__)
