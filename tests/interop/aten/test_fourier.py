import torch
from torch import fft

from tests.interop.aten.cases import Case, check_cases, grouped
from tests.interop.aten.check import draw

X = draw(2, 5, 6)
C = draw(2, 4, 5, seed=1, dtype=torch.complex64)
SIGNAL = draw(2, 40, seed=2)
WINDOW = torch.hann_window(8)
NORMS = (None, "forward", "backward", "ortho")


def windows(x):
    make = torch.signal.windows
    old = (torch.hann_window, torch.hamming_window, torch.blackman_window, torch.bartlett_window)
    return (
        [f(n, periodic=p, dtype=x.dtype) for f in old for n in (1, 6, 7) for p in (True, False)],
        torch.hamming_window(6, True, 0.5, dtype=x.dtype),
        torch.hamming_window(6, True, 0.5, 0.4, dtype=x.dtype),
        [torch.kaiser_window(7, p, 3.0, dtype=x.dtype) for p in (True, False)],
        torch.kaiser_window(6, dtype=x.dtype),
        make.hann(5, dtype=x.dtype),
        make.gaussian(5, dtype=x.dtype),
        make.kaiser(5, dtype=x.dtype),
        make.cosine(5, dtype=x.dtype),
    )


CASES = [
    Case("fft", lambda x, c: [(fft.fft(x, norm=n), fft.ifft(c, norm=n)) for n in NORMS], (X, C)),
    Case("fft of a length", lambda x, c: (fft.fft(x, 4), fft.fft(c, 9, 1), fft.ifft(x, 7)), (X, C)),
    Case("rfft", lambda x: [(fft.rfft(x, norm=n), fft.rfft(x, dim=1)) for n in NORMS], (X,)),
    Case("irfft", lambda c: [(fft.irfft(c, norm=n), fft.irfft(c, 7)) for n in NORMS], (C,)),
    Case("hfft", lambda x, c: (fft.hfft(c), fft.ihfft(x), fft.hfft(c, 6, norm="ortho")), (X, C)),
    Case("fft2", lambda x, c: (fft.fft2(x), fft.ifft2(c), fft.fft2(c, norm="ortho")), (X, C)),
    Case("rfft2", lambda x, c: (fft.rfft2(x), fft.irfft2(c), fft.irfft2(c, (4, 7))), (X, C)),
    Case("hfft2", lambda x, c: (fft.hfft2(c), fft.ihfft2(x)), (X, C)),
    Case("fftn", lambda x, c: (fft.fftn(x), fft.ifftn(c, dim=(2, 0)), fft.rfftn(x)), (X, C)),
    Case("irfftn", lambda c: (fft.irfftn(c, norm="ortho"), fft.irfftn(c, dim=(1, 0))), (C,)),
    Case("shifts", lambda x: (fft.fftshift(x), fft.ifftshift(x, dim=1)), (X,)),
    Case(
        "frequencies",
        lambda x: (fft.fftfreq(5, 0.5, dtype=x.dtype) + x[0, 0, 0], fft.rfftfreq(6, dtype=x.dtype)),
        (X,),
    ),
    Case("there and back", lambda x: fft.irfft(fft.rfft(x) * fft.rfft(x).conj()), (X,)),
    Case("magnitudes", lambda x: fft.rfft(x).abs(), (X,)),
    Case(
        "stft",
        lambda x: (
            torch.stft(x, 8, return_complex=True, window=torch.ones(8, dtype=x.dtype)),
            torch.view_as_real(
                torch.stft(x[0], 8, 3, 6, x[1, :6], return_complex=True, normalized=True)
            ),
            torch.stft(x, 8, 4, window=x[0, :8], center=False, onesided=False, return_complex=True),
            torch.stft(x, 8, window=x[0, :8], pad_mode="constant", return_complex=True),
        ),
        (SIGNAL,),
    ),
    Case(
        "istft",
        lambda x, w: torch.istft(
            torch.stft(x, 8, 2, window=w, return_complex=True), 8, 2, window=w
        ),
        (SIGNAL, WINDOW),
    ),
    Case("windows", windows, (X,), tolerance=10),
]


@grouped(CASES, size=6)
def test_agrees_with_torch(group, wide):
    check_cases(group, wide)
