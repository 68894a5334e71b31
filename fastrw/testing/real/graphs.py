"""Graph networks of torch_geometric. A batch holds n graphs side by side, in tensors without a batch dimension: nodes
and edges of all graphs, and the graph of each node."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
import torch_geometric.nn as G
from torch import Tensor, nn
from torch_geometric.utils import scatter

from ..case import LAYERWISE, TANGENT, Case

CASES: list[Case] = []
NODE, EDGE, HIDDEN, CLASSES, RELATIONS = 6, 4, 8, 3, 3


def graphs(n: int = 6) -> dict[str, Tensor]:
    """n graphs of 3 to 6 nodes: a ring each, and as many edges at random."""
    sizes = torch.randint(3, 7, (n,))
    owner, first = torch.arange(n).repeat_interleave(sizes), (sizes.cumsum(0) - sizes).repeat_interleave(sizes)
    node = torch.arange(len(owner))
    size = sizes[owner]
    ring = first + (node - first + 1) % size
    other = first + (torch.rand(len(owner)) * size).long()
    edges = torch.stack([torch.cat([node, node, ring]), torch.cat([ring, other, node])])
    count = edges.shape[1]
    return {
        "x": torch.randn(len(owner), NODE), "edge_index": edges, "batch": owner, "y": torch.randint(CLASSES, (n,)),
        "edge_attr": torch.rand(count, EDGE), "edge_type": torch.randint(RELATIONS, (count,)),
        "pos": torch.randn(len(owner), 3), "z": torch.randint(1, 9, (len(owner),)),
        "node_y": torch.randint(CLASSES, (len(owner),)),
    }  # fmt: skip


class Network(nn.Module):
    """Layers, each called as `call(layer, hidden, batch)`; then the mean over the nodes of each graph, and a head."""

    def __init__(self, layers: list[nn.Module], call: Callable, readout: Callable = G.global_mean_pool, width=HIDDEN):
        super().__init__()
        self.layers, self.head = nn.ModuleList(layers), nn.Linear(width, CLASSES)
        self.call, self.readout = call, readout

    def nodes(self, b: dict[str, Tensor]) -> Tensor:
        h = b["x"]
        for layer in self.layers:
            h = self.call(layer, h, b).tanh()
        return h

    def forward(self, b: dict[str, Tensor]) -> Tensor:
        return self.head(self.readout(self.nodes(b), b["batch"]))


def by_graph(model: nn.Module, b: dict[str, Tensor]) -> Tensor:
    return F.cross_entropy(model(b), b["y"], reduction="none")


def by_node(model: nn.Module, b: dict[str, Tensor]) -> Tensor:
    """The mean over the nodes of each graph of a loss of each node."""
    losses = F.cross_entropy(model.head(model.nodes(b)), b["node_y"], reduction="none")
    return scatter(losses, b["batch"], dim_size=len(b["y"]), reduce="mean")


def add(name: str, model: Callable[[], nn.Module], expect=LAYERWISE, losses: Callable = by_graph, **options) -> None:
    CASES.append(Case(name, model, graphs, expect, kwargs={"losses_fn": losses}, **options))


def plain(layer, h, b):
    return layer(h, b["edge_index"])


def attributed(layer, h, b):
    return layer(h, b["edge_index"], b["edge_attr"])


def weighted(layer, h, b):
    return layer(h, b["edge_index"], b["edge_attr"][:, 0])


def typed(layer, h, b):
    return layer(h, b["edge_index"], b["edge_type"])


def two(make: Callable[[int, int], nn.Module], call: Callable = plain, **options) -> Callable[[], nn.Module]:
    return lambda: Network([make(NODE, HIDDEN), make(HIDDEN, HIDDEN)], call, **options)


def mlp(a: int, b: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(a, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, b))


def after(norm: Callable[[], nn.Module], by_graphs: bool = False) -> Callable[[], nn.Module]:
    """A convolution, a norm, a convolution."""

    def call(layer, h, b):
        if isinstance(layer, G.GCNConv):
            return layer(h, b["edge_index"])
        return layer(h, b["batch"], len(b["y"])) if by_graphs else layer(h)

    return lambda: Network([G.GCNConv(NODE, HIDDEN), norm(), G.GCNConv(HIDDEN, HIDDEN)], call)


DEGREES = torch.tensor([0, 3, 8, 9, 4, 1])
# name -> (a layer from widths, how it is called)
CONVOLUTIONS = {
    "GCNConv": (G.GCNConv, weighted),
    "GATConv": (lambda a, b: G.GATConv(a, b // 2, heads=2, edge_dim=EDGE), attributed),
    "GATv2Conv": (lambda a, b: G.GATv2Conv(a, b // 2, heads=2, edge_dim=EDGE), attributed),
    "SAGEConv": (G.SAGEConv, plain),
    "SAGEConv_max": (lambda a, b: G.SAGEConv(a, b, aggr="max"), plain),
    "SAGEConv_lstm": (lambda a, b: G.SAGEConv(a, b, aggr="lstm"), lambda layer, h, b: layer(h, by_target(b))),
    "GINConv": (lambda a, b: G.GINConv(mlp(a, b), train_eps=True), plain),
    "GINEConv": (lambda a, b: G.GINEConv(mlp(a, b), edge_dim=EDGE), attributed),
    "PNAConv": (lambda a, b: G.PNAConv(a, b, ["mean", "min", "max", "std"], ["identity", "amplification"], DEGREES,
                                       edge_dim=EDGE), attributed),
    "EdgeConv": (lambda a, b: G.EdgeConv(mlp(2 * a, b)), plain),
    "EdgeConv_of_neighbours": (lambda a, b: G.EdgeConv(mlp(2 * a, b)), lambda layer, h, b: layer(h, nearest(h, b))),
    "TransformerConv": (lambda a, b: G.TransformerConv(a, b // 2, heads=2, edge_dim=EDGE, beta=True), attributed),
    "ChebConv": (lambda a, b: G.ChebConv(a, b, K=3), lambda layer, h, b: layer(h, b["edge_index"], batch=b["batch"])),
    "SGConv": (lambda a, b: G.SGConv(a, b, K=2), plain),
    "SSGConv": (lambda a, b: G.SSGConv(a, b, alpha=0.1, K=2), plain),
    "TAGConv": (lambda a, b: G.TAGConv(a, b, K=2), plain),
    "ARMAConv": (lambda a, b: G.ARMAConv(a, b, num_stacks=2), plain),
    "RGCNConv": (lambda a, b: G.RGCNConv(a, b, RELATIONS, num_bases=2), typed),
    "FastRGCNConv": (lambda a, b: G.FastRGCNConv(a, b, RELATIONS), typed),
    "FiLMConv": (lambda a, b: G.FiLMConv(a, b, num_relations=RELATIONS), typed),
    "GatedGraphConv": (lambda a, b: G.GatedGraphConv(b, num_layers=2), plain),
    "ResGatedGraphConv": (lambda a, b: G.ResGatedGraphConv(a, b, edge_dim=EDGE), attributed),
    "NNConv": (lambda a, b: G.NNConv(a, b, mlp(EDGE, a * b)), attributed),
    "CGConv": (lambda a, b: nn.ModuleList([G.CGConv(a, dim=EDGE), nn.Linear(a, b)]),
               lambda layer, h, b: layer[1](attributed(layer[0], h, b))),
    "GMMConv": (lambda a, b: G.GMMConv(a, b, dim=EDGE, kernel_size=2), attributed),
    "GraphConv": (G.GraphConv, weighted),
    "LEConv": (G.LEConv, weighted),
    "ClusterGCNConv": (G.ClusterGCNConv, plain),
    "GENConv": (lambda a, b: G.GENConv(a, b, aggr="softmax", learn_t=True, edge_dim=EDGE, norm="layer"), attributed),
    "FeaStConv": (lambda a, b: G.FeaStConv(a, b, heads=2), plain),
    "MFConv": (lambda a, b: G.MFConv(a, b, max_degree=5), plain),
    "SuperGATConv": (lambda a, b: G.SuperGATConv(a, b, is_undirected=True), plain),
    "EGConv": (lambda a, b: G.EGConv(a, b, num_heads=2, num_bases=2), plain),
    "PDNConv": (lambda a, b: G.PDNConv(a, b, edge_dim=EDGE, hidden_channels=4), attributed),
    "GeneralConv": (lambda a, b: G.GeneralConv(a, b, in_edge_channels=EDGE, attention=True), attributed),
    "HypergraphConv": (G.HypergraphConv, lambda layer, h, b: layer(h, b["edge_index"], num_edges=len(h))),
    "MixHopConv": (lambda a, b: G.MixHopConv(a, b // 2, powers=[0, 1]), plain),
    "AntiSymmetricConv": (lambda a, b: nn.ModuleList([G.AntiSymmetricConv(a), nn.Linear(a, b)]),
                          lambda layer, h, b: layer[1](plain(layer[0], h, b))),
    "PointNetConv": (lambda a, b: G.PointNetConv(mlp(a + 3, b), nn.Linear(b, b)),
                     lambda layer, h, b: layer(h, b["pos"], b["edge_index"])),
    "PointTransformerConv": (G.PointTransformerConv, lambda layer, h, b: layer(h, b["pos"], b["edge_index"])),
    "PPFConv": (lambda a, b: G.PPFConv(mlp(a + 4, b), nn.Linear(b, b)),
                lambda layer, h, b: layer(h, b["pos"], F.normalize(b["pos"].flip(1), dim=1), b["edge_index"])),
}  # fmt: skip


def by_target(b: dict[str, Tensor]) -> Tensor:
    """The edges in the order of their targets, which recurrent aggregation needs."""
    return b["edge_index"][:, b["edge_index"][1].argsort(stable=True)]


def nearest(h: Tensor, b: dict[str, Tensor]) -> Tensor:
    """The two neighbours of each node whose features are nearest, as DynamicEdgeConv finds them."""
    far = torch.cdist(h, h).detach() + 1e6 * (b["batch"][:, None] != b["batch"]) + 1e3 * torch.eye(len(h))
    return torch.stack([far.topk(2, largest=False).indices.flatten(), torch.arange(len(h)).repeat_interleave(2)])


def within(pos: Tensor, owner: Tensor) -> tuple[Tensor, Tensor]:
    """The pairs of nodes of one graph, and their distances."""
    edges = ((owner[:, None] == owner) & ~torch.eye(len(owner), dtype=torch.bool)).nonzero().T
    return edges, (pos[edges[0]] - pos[edges[1]]).norm(dim=-1)


def adjacent(layer: nn.Module, h: Tensor, b: dict[str, Tensor]) -> Tensor:
    """By a sparse matrix in place of a list of edges."""
    edges = b["edge_index"].flip(0)
    matrix = torch.sparse_coo_tensor(edges, torch.ones(edges.shape[1], dtype=h.dtype), 2 * (len(h),))
    return layer(h, matrix.coalesce().to_sparse_csr())


for kind in (G.GCNConv, G.SAGEConv, G.GraphConv, G.TAGConv):
    add(f"{kind.__name__}_sparse", two(kind, adjacent))
add("GINConv_sparse", two(lambda a, b: G.GINConv(mlp(a, b)), adjacent))
for name, (make, call) in CONVOLUTIONS.items():
    add(name, two(make, call))
for name in ("GCNConv", "GATv2Conv"):
    add(f"{name}_by_node", two(*CONVOLUTIONS[name]), losses=by_node)
add("APPNP", lambda: Network([nn.Linear(NODE, HIDDEN), G.APPNP(2, 0.1)], lambda layer, h, b: plain(layer, h, b)
    if isinstance(layer, G.APPNP) else layer(h)))  # fmt: skip

add("GraphNorm", after(lambda: G.GraphNorm(HIDDEN), True))
add("InstanceNorm", after(lambda: G.InstanceNorm(HIDDEN, affine=True), True))
add("LayerNorm_of_graphs", after(lambda: G.LayerNorm(HIDDEN), True))
add("LayerNorm_of_nodes", after(lambda: G.LayerNorm(HIDDEN, mode="node")))
add("PairNorm", after(lambda: G.PairNorm(), True))
# the statistics of these norms are of all nodes of the batch
add("BatchNorm", after(lambda: G.BatchNorm(HIDDEN)), TANGENT)
add("MeanSubtractionNorm", after(lambda: G.MeanSubtractionNorm()), TANGENT)
add("DiffGroupNorm", after(lambda: G.DiffGroupNorm(HIDDEN, 2)), TANGENT)


def pooled(pool: Callable[[int], nn.Module]) -> Callable[[], nn.Module]:
    """A convolution, a pool that keeps the best nodes of each graph, a convolution."""

    class Pooled(Network):
        def forward(self, b):
            h, edges = self.layers[0](b["x"], b["edge_index"]).tanh(), b["edge_index"]
            h, edges, *_, owner = self.layers[1](h, edges, batch=b["batch"])[:4]
            return self.head(G.global_max_pool(self.layers[2](h, edges), owner, len(b["y"])))

    return lambda: Pooled([G.GraphConv(NODE, HIDDEN), pool(HIDDEN), G.GraphConv(HIDDEN, HIDDEN)], plain)


add("TopKPooling", pooled(lambda width: G.TopKPooling(width, 0.6)))
add("SAGPooling", pooled(lambda width: G.SAGPooling(width, 0.6, GNN=G.GraphConv)))


def read(readout: Callable[[], nn.Module], width: int = HIDDEN) -> Callable[[], nn.Module]:
    return lambda: Network([G.GCNConv(NODE, HIDDEN)], plain, readout(), width)


add("Set2Set", read(lambda: G.Set2Set(HIDDEN, 2), 2 * HIDDEN))
add("AttentionalAggregation", read(lambda: G.AttentionalAggregation(nn.Linear(HIDDEN, 1), mlp(HIDDEN, HIDDEN))))
add("SoftmaxAggregation", read(lambda: G.SoftmaxAggregation(learn=True)))
add("SortAggregation", read(lambda: G.SortAggregation(3), 3 * HIDDEN))
add("DeepSetsAggregation", read(lambda: G.DeepSetsAggregation(mlp(HIDDEN, HIDDEN), mlp(HIDDEN, HIDDEN))))
add("SetTransformerAggregation", read(lambda: G.SetTransformerAggregation(HIDDEN, heads=2)))
add("GRUAggregation", read(lambda: G.GRUAggregation(HIDDEN, HIDDEN)))


class Whole(nn.Module):
    """A ready-made model of torch_geometric, as `call(model, batch)` [n, classes]."""

    def __init__(self, model: nn.Module, call: Callable):
        super().__init__()
        self.model, self.call = model, call

    def forward(self, b: dict[str, Tensor]) -> Tensor:
        return self.call(self.model, b)


def whole(name: str, make: Callable[[], nn.Module], call: Callable, expect=LAYERWISE, **options) -> None:
    add(name, lambda: Whole(make(), call), expect, **options)


def averaged(model, b):
    return G.global_add_pool(model(b["x"], b["edge_index"]), b["batch"])


def energy(model: nn.Module, b: dict[str, Tensor]) -> Tensor:
    return (model(b).flatten() - b["y"]).abs()


for kind in (G.GCN, G.GraphSAGE, G.GIN, G.GAT, G.EdgeCNN):
    whole(f"{kind.__name__}_jk", lambda kind=kind: kind(NODE, HIDDEN, 2, CLASSES, jk="cat"), averaged)
whole("GIN_lstm", lambda: G.GIN(NODE, HIDDEN, 2, CLASSES, jk="lstm"), averaged)
whole("GCN_BatchNorm", lambda: G.GCN(NODE, HIDDEN, 2, CLASSES, norm="BatchNorm", dropout=0.2), averaged, TANGENT)
whole("GraphUNet", lambda: G.GraphUNet(NODE, HIDDEN, CLASSES, depth=1, pool_ratios=0.6), lambda model, b:
      G.global_mean_pool(model(b["x"], b["edge_index"], b["batch"]), b["batch"]))  # fmt: skip
whole("AttentiveFP", lambda: G.AttentiveFP(NODE, HIDDEN, CLASSES, EDGE, 2, 2), lambda model, b:
      model(b["x"], b["edge_index"], b["edge_attr"], b["batch"]))  # fmt: skip
whole("SchNet", lambda: G.SchNet(HIDDEN, HIDDEN, 2, 6, interaction_graph=within), lambda model, b:
      model(b["z"], b["pos"], b["batch"]), losses=energy)  # fmt: skip
