import pytest
import torch
from support import DIGITS, REPOSITORY
from support import classification as cls
from support import detection as det
from support import segmentation as seg
from torch import nn
from torch._dynamo.utils import counters
from torch.utils._pytree import tree_leaves

from mmaib.functional import nearest_anchor
from mmaib.layers import (
    AttentiveBottleneck,
    GaussianEncoder,
    InformationGate,
    RectangularAttention,
    VariationalAttention,
)
from mmaib.layers.capture import capture_attention
from mmaib.losses import collect
from mmaib.models import AIBNeck

# torch's own, on copying a program
pytestmark = pytest.mark.filterwarnings('ignore::FutureWarning')

BEIT = seg.UPERNET / f'aib-qt_{seg.BEIT}'
LITE0 = DIGITS
DRAWS = {
    'randn_like': torch.randn_like,
    'bernoulli': torch.bernoulli,
    'dropout': nn.functional.dropout,
    'normal': lambda x: torch.normal(x, 1.0),
    'uniform_': lambda x: x.clone().uniform_(),
    'randperm': lambda x: x[torch.randperm(3)],
    'multinomial': lambda x: x.multinomial(1),
    'in a branch': lambda x: torch.cond(
        x.sum() > 0, torch.randn_like, torch.sin, (x,)
    ),
}
IN_A_BRANCH = """
<ir_version: 8, opset_import: ["": 18]>
main (bool which, float[3] x) => (float[3] y) {
    y = If (which) <
        then_branch = yes () => (float[3] a) { a = RandomNormalLike (x) },
        else_branch = no () => (float[3] b) { b = Identity (x) }>
}"""
IN_A_FUNCTION = """
<ir_version: 8, opset_import: ["": 18, "own": 1]>
main (float[3] x) => (float[3] y) { y = own.draw (x) }
<domain: "own", opset_import: ["": 18]>
draw (x) => (y) { y = Bernoulli (x) }"""
DROPOUT = """
<ir_version: 8, opset_import: ["": 18]>
main (float[3] x, float p, bool on) => (float[3] y) {{ y = Dropout ({}) }}"""


class Calls(nn.Module):
    """A function of some modules, for exporters that want one module."""

    def __init__(self, call, *parts):
        super().__init__()
        self.call = call
        self.parts = nn.ModuleList(parts)

    def forward(self, *inputs):
        return self.call(*self.parts, *inputs)


def stir(model):
    """Maps that use many anchors, in no order; noise that would show."""
    for layer in model.modules():
        if isinstance(layer, RectangularAttention):
            nn.init.normal_(layer.mean.weight)
        if isinstance(layer, VariationalAttention):
            nn.init.kaiming_normal_(layer.mean_conv.weight)
            nn.init.constant_(layer.std_conv.bias, 4.0)
        if isinstance(layer, AttentiveBottleneck):
            if layer.quantizer is not None:
                anchors = layer.quantizer.anchors
                anchors.data = anchors.data[torch.randperm(len(anchors))]
            if isinstance(layer.modulation, InformationGate):
                for own in layer.modulation.statistics:
                    nn.init.normal_(own.mean)
                    nn.init.uniform_(own.var, 0.5, 2)
            elif layer.modulation.gate is not None:
                nn.init.ones_(layer.modulation.gate)
        elif isinstance(layer, GaussianEncoder):
            nn.init.constant_(layer.std.bias, 4.0)
    return model.eval()


def segmentor(path, test_draws='mean'):
    cfg = seg.shrink(seg.config(path))
    cfg.model.test_draws = test_draws
    return stir(seg.build(cfg)), (torch.randn(1, 3, *seg.SIZE),)


def classifier():
    """All of it: a classifier's forward gives logits at the mean."""
    cfg = cls.shrink(cls.config('wrn28-10-aib-qt'))
    return stir(cls.build(cfg)), (torch.randn(1, 3, 32, 32),)


def detector(call, head):
    """The neck and a head behind it, and the backbone's features."""
    cfg = det.shrink(det.aib_config('aib-qt'))
    cfg.model.test_draws = 'mean'
    ours = stir(det.build(cfg))
    features = tuple(
        torch.randn(1, channels, side, side)
        for channels, side in ((64, 16), (128, 8), (256, 4), (512, 2))
    )
    return Calls(call, ours.neck, ours.get_submodule(head)), features


def shared_map():
    neck = AIBNeck(
        dict(quantizer=dict(num_anchors=20)),
        map='shared',
        in_channels=[8, 8, 8],
        map_level=-1,
    )
    x = tuple(torch.randn(1, 8, side, side) for side in (23, 12, 6))
    return stir(Calls(lambda neck, *x: neck(x), neck)), x


def gate(anchors=None, half_way=False, **fields):
    """Levels with statistics of their own behind a gate, open or faded in
    by half."""
    quantizer = anchors and dict(num_anchors=anchors)
    neck = AIBNeck(
        dict(modulation=dict(type='mmaib.InformationGate'),
             quantizer=quantizer),
        in_channels=[8, 8, 8],
        **fields,
    )  # fmt: skip
    if half_way:
        neck.bottleneck.modulation.strength.fill_(0.5)
    x = tuple(torch.randn(1, 8, side, side) for side in (23, 12, 6))
    return stir(Calls(lambda neck, *x: neck(x), neck)), x


def rectangles(pooling, **fields):
    attention = dict(
        type='mmaib.RectangularAttention',
        channels=(8, 8, 8),
        pooling=pooling,
    )
    neck = AIBNeck(dict(attention=attention, **fields), in_channels=8)
    x = tuple(torch.randn(1, 8, side, side) for side in (23, 12))
    return stir(Calls(lambda neck, *x: neck(x), neck)), x


def position_wise():
    attention = dict(type='mmaib.PositionWiseAttention', channels=8)
    neck = AIBNeck(dict(attention=attention), in_channels=8)
    return stir(Calls(lambda neck, x: neck([x]), neck)), (
        torch.randn(1, 8, 13, 13),
    )


PIECES = {
    'rectangles': lambda: rectangles('mean'),
    'rectangles from moments': lambda: rectangles(
        'moments',
        modulation=dict(mode='scale_residual', rescale=True),
    ),
    'position-wise': position_wise,
    'UPerNet BEiT': lambda: segmentor(BEIT),
    'UPerNet Lite0': lambda: segmentor(LITE0),
    'WRN-28-10': classifier,
    'neck and RPN': lambda: detector(
        lambda neck, head, *x: head(neck(x)), 'rpn_head'
    ),
    # one quantised map, made on the coarsest grid
    'shared map': shared_map,
    'gate': gate,
    'gate with anchors, faded in by half': lambda: gate(20, half_way=True),
    'gate with a shared map': lambda: gate(20, map='shared', map_level=1),
    # a window stands in for RoIAlign
    'neck and box head': lambda: detector(
        lambda neck, head, *x: head(neck(x)[0][..., :7, :7]),
        'roi_head.bbox_head',
    ),
}


def eager(module, inputs):
    """The outputs, of maps that are worth a comparison."""
    with torch.no_grad(), capture_attention(module) as maps:
        outputs = tree_leaves(module(*inputs))
    scores = [m.mean if m.quantized is None else m.quantized for m in maps]
    assert len(torch.cat([x.flatten() for x in scores]).unique()) > 5
    return outputs


def assert_agree(outputs, expected):
    assert len(outputs) == len(expected)
    for ours, theirs in zip(outputs, expected):
        assert ours.shape == theirs.shape
        scale = theirs.abs().max().clamp(max=1)
        assert (ours - theirs).abs().max() <= 1e-4 * scale


def export(module, inputs):
    """Down to core operators, among which an idle dropout is none."""
    return torch.export.export(module, inputs).run_decompositions()


def draws_of(program):
    """The operators of an exported program that draw random numbers."""
    return [
        str(node.target)
        for part in program.graph_module.modules()
        if isinstance(part, torch.fx.GraphModule)
        for node in part.graph.nodes
        if torch.Tag.nondeterministic_seeded
        in getattr(node.target, 'tags', ())
    ]


def export_onnx(module, inputs):
    for package in ('onnx', 'onnxscript'):
        pytest.importorskip(package)
    program = torch.onnx.export(module, inputs, dynamo=True, verbose=False)
    return program.model_proto


def run_onnx(model, inputs):
    runtime = pytest.importorskip('onnxruntime')
    session = runtime.InferenceSession(
        model.SerializeToString(), providers=['CPUExecutionProvider']
    )
    names = [node.name for node in session.get_inputs()]
    arrays = dict(zip(names, (x.numpy() for x in inputs)))
    return [torch.from_numpy(out) for out in session.run(None, arrays)]


def nodes_in(nodes):
    """ONNX nodes, and those of the graphs inside them."""
    for node in nodes:
        yield node
        for attribute in node.attribute:
            for graph in (attribute.g, *attribute.graphs):
                yield from nodes_in(graph.node)


def draws_of_onnx(model):
    """The operators of an ONNX model that draw random numbers."""
    return [
        node.op_type
        for graph in (model.graph, *model.functions)
        for node in nodes_in(graph.node)
        if node.op_type.startswith(('Bernoulli', 'Multinomial', 'Random'))
        # The third input switches a dropout on.
        or (node.op_type == 'Dropout' and any(node.input[2:]))
    ]


@pytest.mark.parametrize('piece', PIECES)
def test_the_exported_program_draws_nothing_and_agrees(piece):
    module, inputs = PIECES[piece]()
    program = export(module, inputs)
    assert draws_of(program) == []
    outputs = tree_leaves(program.module()(*inputs))
    assert_agree(outputs, eager(module, inputs))


@pytest.mark.parametrize('piece', PIECES)
def test_the_onnx_graph_draws_nothing_and_agrees(piece):
    module, inputs = PIECES[piece]()
    model = export_onnx(module, inputs)
    assert draws_of_onnx(model) == []
    assert_agree(run_onnx(model, inputs), eager(module, inputs))


@pytest.mark.parametrize(
    'attention',
    [
        None,
        dict(type='mmaib.RectangularAttention', channels=(8,)),
        dict(type='mmaib.PositionWiseAttention', channels=8),
    ],
    ids=['variational', 'rectangular', 'position-wise'],
)
def test_the_bottleneck_is_exported_for_any_batch_and_grid(attention):
    ours = stir(
        AttentiveBottleneck(8, attention, quantizer=dict(num_anchors=20))
    )
    sizes = {dim: torch.export.Dim.DYNAMIC for dim in (0, 2, 3)}
    program = torch.export.export(
        ours, (torch.randn(2, 8, 12, 10),), dynamic_shapes=dict(x=sizes)
    )
    x = torch.randn(3, 8, 9, 11)
    assert torch.equal(program.module()(x), ours(x))


def test_ties_between_anchors_end_in_onnx_as_in_torch():
    anchors = torch.tensor([1.0, 0.0, 0.5, 0.5])
    quantize = Calls(lambda x: nearest_anchor(x, anchors)[0])
    scores = (torch.tensor([[-1.0, 0.25, 0.3], [0.5, 0.75, 2.0]]),)
    model = export_onnx(quantize, scores)
    assert torch.equal(run_onnx(model, scores)[0], quantize(*scores))


@pytest.mark.parametrize('draw', DRAWS)
def test_a_draw_in_an_exported_program_is_found(draw):
    assert draws_of(export(Calls(DRAWS[draw]), (torch.rand(3),)))


def test_the_drawn_mode_is_exported_with_its_draws():
    """One of the map, one of the latent."""
    ours, image = segmentor(BEIT, dict(attention=2, latent=1))
    meta = dict(img_shape=seg.SIZE, pad_shape=seg.SIZE)
    drawn = Calls(lambda model, x: model.encode_decode(x, [meta]), ours)
    assert len(draws_of(export(drawn, image))) == 2


@pytest.mark.parametrize(
    ('text', 'found'),
    [
        (IN_A_BRANCH, ['RandomNormalLike']),
        (IN_A_FUNCTION, ['Bernoulli']),
        (DROPOUT.format('x, p, on'), ['Dropout']),
        (DROPOUT.format('x, p'), []),
    ],
    ids=['branch', 'function', 'dropout', 'idle dropout'],
)
def test_a_draw_in_an_onnx_model_is_found(text, found):
    onnx = pytest.importorskip('onnx')
    assert draws_of_onnx(onnx.parser.parse_model(text)) == found


def test_a_draw_that_torch_exports_to_onnx_is_found():
    model = export_onnx(Calls(torch.randn_like), (torch.rand(3),))
    assert draws_of_onnx(model) == ['RandomNormalLike']


@pytest.mark.parametrize('quantizer', [None, dict(num_anchors=20)])
@pytest.mark.parametrize(
    'modulation',
    [
        dict(mode='scale_residual'),
        dict(mode='concat'),
        dict(type='mmaib.InformationGate'),
    ],
    ids=str,
)
def test_the_bottleneck_compiles_without_a_graph_break(quantizer, modulation):
    torch.compiler.reset()
    ours = stir(AttentiveBottleneck(8, None, quantizer, modulation=modulation))
    x = torch.randn(2, 8, 12, 12)
    compiled = torch.compile(ours, fullgraph=True, backend='aot_eager')
    with torch.no_grad():
        assert torch.equal(compiled(x), ours(x))


def reports_and_gradients(module, call, x):
    module.zero_grad()
    with collect() as aux:
        outputs = call(x)
    reports = aux.mean()
    losses = [value for name, value in reports.items() if 'loss' in name]
    (sum(out.sum() for out in outputs) + sum(losses)).backward()
    gradients = [p.grad for p in module.parameters()]
    return [reports[name] for name in sorted(reports)] + gradients


def test_the_neck_trains_compiled_without_a_graph_break():
    """And its reports and their gradients leave the graph."""
    torch.compiler.reset()
    fields = dict(beta=1e-3, quantizer=dict(num_anchors=20))
    neck = AIBNeck(fields, in_channels=8).train()
    x = [torch.randn(2, 8, side, side) for side in (12, 6)]
    compiled = torch.compile(neck, fullgraph=True, backend='aot_eager')
    got, expected = (
        reports_and_gradients(neck, call, x) for call in (compiled, neck)
    )
    assert len(got) > 10
    torch.testing.assert_close(got, expected)


@pytest.mark.parametrize(
    ('support', 'make', 'sizes'),
    [
        (cls, lambda: cls.make(cls.OURS), (2, 32)),
        pytest.param(det, det.detector, (), marks=pytest.mark.slow),
        pytest.param(
            seg, seg.make, (((64, 64), (64, 64)),), marks=pytest.mark.slow
        ),
    ],
    ids=['classifier', 'detector', 'segmentor'],
)
def test_a_model_trains_compiled(support, make, sizes, monkeypatch):
    """As under the runner's ``compile=True``: whatever breaks the graph, no
    loss is lost, and no break is in a file of mmaib's."""
    model, data = make().train(), support.inputs(*sizes)
    torch.manual_seed(0)
    eager = support.loss(model, data)
    torch.compiler.reset()
    counters.clear()
    forward = torch.compile(model.forward, backend='aot_eager')
    monkeypatch.setattr(model, 'forward', forward)
    torch.manual_seed(0)
    compiled = support.loss(model, data)
    assert compiled.keys() == eager.keys() > {'loss_vq', 'loss_commit'}
    torch.testing.assert_close(compiled, eager)
    package = str(REPOSITORY / 'mmaib')
    assert not [r for r in counters['graph_break'] if package in r]
