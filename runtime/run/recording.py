"""What of a plan goes into the log of its run: channels, metadata and the graph file."""

from __future__ import annotations

import json
from pathlib import Path

from flowrun.runtime.graph.masking import masked_graph
from flowrun.runtime.graph.plan import Plan
from flowrun.runtime.log.slab.format import GRAPH_RESOLVED, KEYFRAME_INTERVAL, Attachment
from flowrun.runtime.log.writer import Output
from flowrun.runtime.run.provenance import provenance
from flowrun.runtime.wording import mask_urls

__all__ = ["attachments_of", "metadata_of", "outputs_of"]


def outputs_of(plan: Plan) -> list[Output]:
    """The plan's slots as channels of a log."""
    return [
        Output(
            slot.task_id,
            slot.port,
            slot.topic,
            slot.message_type,
            slot.logged,
            slot.payload,
            slot.codec,
        )
        for slot in plan.slots
    ]


def metadata_of(plan: Plan, directory: Path, started_ns: int) -> dict[str, str]:
    """What the log of a run says of it."""
    graph = plan.graph.spec
    return {
        "run_id": directory.name,
        "graph": graph.name,
        "graph_path": str(graph.path.absolute()),
        "started_ns": str(started_ns),
        "seed": str(graph.runtime.seed),
        KEYFRAME_INTERVAL: str(graph.logging.keyframe_interval),
        **provenance(plan),
    }


def attachments_of(plan: Plan, now_ns: int) -> list[Attachment]:
    """The graph file, and the resolved graph, secrets masked."""
    graph = plan.graph.spec
    text = mask_urls(graph.text if graph.stored_text is None else graph.stored_text)
    resolved = json.dumps(masked_graph(graph), indent=1, default=str).encode()
    return [
        Attachment("graph.yaml", "application/yaml", text.encode(), now_ns, now_ns),
        Attachment(GRAPH_RESOLVED, "application/json", resolved, now_ns, now_ns),
    ]
