"""Export of an adapted network to a file that other programs run without innerloop: StableHLO or ONNX."""

from innerloop.learner.exporting.formats import export as export
