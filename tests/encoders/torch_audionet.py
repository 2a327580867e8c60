"""AudioNet in PyTorch, written down again from its description, with the tensor names of the original."""

from torch import nn


class AudioNet(nn.Module):
    """Waveforms [B, S] -> features [B, T, D] of `steps`, or their maximum over time [B, D]."""

    def __init__(self, channels=(64, 128, 256, 512)):
        super().__init__()
        modules, before = [], 1
        for after in channels:
            for width in (before, after):
                modules += [nn.Conv1d(width, after, 3, 2, 1), nn.BatchNorm1d(after), nn.ReLU()]
            modules.append(nn.MaxPool1d(2))
            before = after
        self.features = nn.Sequential(*modules)

    def steps(self, x):
        return self.features(x[:, None]).transpose(1, 2)

    def forward(self, x):
        return self.steps(x).amax(1)
