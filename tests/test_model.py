import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests import toy
from umemma_jax import missing
from umemma_jax.errors import UserError
from umemma_jax.fusion import FAMILIES, HEADS, Linear
from umemma_jax.model import encoder_module, start_from_heads
from umemma_jax.patterns import all_patterns
from umemma_jax.task import LOGITS

STAND_INS = ("zero", "token", "mean")


def row_keys(rows, seed=0):
    return jax.vmap(jax.random.fold_in, in_axes=(None, 0))(jax.random.key(seed), jnp.arange(rows))


def masks(rows, modalities, seed=0):
    patterns = all_patterns(modalities)
    return patterns[np.random.default_rng(seed).integers(len(patterns), size=rows)]


@pytest.mark.parametrize("names", [("a", "b"), ("a", "b", "c")])
@pytest.mark.parametrize("stand_in", STAND_INS)
def test_outputs_have_the_documented_names_and_shapes(names, stand_in):
    model, batch = toy.model(names, stand_in=stand_in), toy.batch(6, names)
    outputs = model.apply(toy.variables(model, names), batch["inputs"], batch["present"], means=toy.means(names))
    assert outputs["logits"].shape == (6, toy.CLASSES)
    for name in names:
        assert outputs[f"features/{name}"].shape == (6, toy.FEATURES)
        assert outputs[f"logits/{name}"].shape == (6, toy.CLASSES)


@pytest.mark.parametrize(("stand_in", "train", "head"), list(itertools.product(STAND_INS, (False, True), HEADS)))
def test_no_value_of_an_absent_modality_reaches_any_output(stand_in, train, head):
    """Absent inputs are replaced by huge numbers and by NaN: outputs, statistics and gradients stay the same."""
    model = toy.model(stand_in=stand_in, preprocess=toy.jitter, head=head)
    variables, batch = toy.variables(model), toy.batch(12)
    present = masks(12, 2)

    def run(params, inputs):
        outputs, updates = model.apply(
            {**variables, "params": params},
            inputs,
            present,
            train=train,
            keys=row_keys(12),
            means=toy.means(),
            mutable=["batch_stats"],
        )
        return jnp.square(outputs["logits"]).sum(), (outputs, updates)

    def garbage(value):
        return {
            name: np.where(present[:, [m]], x, np.float32(value)) for m, (name, x) in enumerate(batch["inputs"].items())
        }

    expected = jax.value_and_grad(run, has_aux=True)(variables["params"], batch["inputs"])
    for value in (1e30, np.nan):
        found = jax.value_and_grad(run, has_aux=True)(variables["params"], garbage(value))
        jax.tree.map(np.testing.assert_array_equal, found, expected)


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("stand_in", ["zero", "token"])
@pytest.mark.parametrize("names", [("a", "b"), ("a", "b", "c")])
def test_fusion_starts_as_the_product_of_the_experts_that_are_present(head, stand_in, names):
    """The prior counts once, and a single modality decides exactly as its own head."""
    model = toy.model(names, stand_in=stand_in, head=head)
    variables, batch = toy.variables(model, names), toy.batch(32, names)
    rng = np.random.default_rng(1)
    for name in names:  # biases are zero at initialisation: give them something to get wrong
        variables["params"][f"heads_{name}"]["bias"] = rng.normal(size=toy.CLASSES).astype(np.float32)
    prior = np.log(np.float32([0.7, 0.2, 0.1]))
    variables["params"] = start_from_heads(variables["params"], head, prior)
    present = masks(32, len(names))
    outputs = model.apply(variables, batch["inputs"], present)
    unimodal = np.stack([outputs[f"logits/{name}"] for name in names])
    expected = prior + ((unimodal - prior) * present.T[:, :, None]).sum(axis=0)
    np.testing.assert_allclose(outputs["logits"], expected, atol=1e-5)
    alone = present.sum(axis=1) == 1
    np.testing.assert_allclose(outputs["logits"][alone], unimodal.sum(axis=0)[alone], atol=1e-5)


@pytest.mark.parametrize("multi_label", [False, True])
def test_where_modalities_are_independent_given_the_class_the_head_starts_as_bayes_posterior(multi_label):
    """Heads that are exact on their modality, one of three symbols each; every posterior is known from the joint."""
    rng = np.random.default_rng(0)
    names, classes, symbols = ("a", "b", "c"), 2 if multi_label else 4, 3
    prior = rng.dirichlet(np.ones(classes))
    likelihood = rng.dirichlet(np.ones(symbols), size=(len(names), classes))  # p(symbol | class), [M, K, symbols]
    joint = prior[:, None] * likelihood
    log = np.log(joint / joint.sum(axis=1, keepdims=True))  # log p(class | symbol)
    if multi_label:  # one label, there (class 1) or not
        log, log_prior = log[:, 1:] - log[:, :1], np.log(prior[1:] / prior[:1])
    else:
        log_prior = np.log(prior)
    kernels = {name: np.float32(log[m].T) for m, name in enumerate(names)}  # a feature is a symbol, one-hot
    heads = {
        name: {"kernel": kernel, "bias": np.zeros(kernel.shape[1], np.float32)} for name, kernel in kernels.items()
    }
    fusion = Linear(names, log.shape[1])
    params = FAMILIES[LOGITS].heads["linear"].from_heads({}, heads, np.float32(log_prior))
    seen = np.array(list(itertools.product(range(symbols), repeat=len(names))))
    for pattern in all_patterns(len(names)):
        present = np.tile(pattern, (len(seen), 1))
        features = {name: np.float32(np.eye(symbols)[seen[:, m]] * present[:, [m]]) for m, name in enumerate(names)}
        logits = fusion.apply({"params": params}, features, present)
        factors = [likelihood[m][:, seen[:, m]] for m in np.flatnonzero(pattern)]
        posterior = prior[:, None] * np.prod(factors, axis=0)
        posterior /= posterior.sum(axis=0)
        found = jax.nn.sigmoid(logits[:, 0]) if multi_label else jax.nn.softmax(logits).T
        np.testing.assert_allclose(found, posterior[1] if multi_label else posterior, atol=1e-6)


def test_linear_head_is_a_linear_layer_on_the_concatenation():
    model = toy.model(stand_in="token")
    variables, batch = toy.variables(model), toy.batch(8)
    params = variables["params"]
    outputs = model.apply(variables, batch["inputs"], batch["present"])
    features = np.concatenate([outputs["features/a"], outputs["features/b"]], axis=1)
    kernel = np.concatenate([params["fusion"]["kernel_a"], params["fusion"]["kernel_b"]])
    bias = np.asarray(params["fusion"]["bias_a"] + params["fusion"]["bias_b"])
    np.testing.assert_allclose(outputs["logits"], features @ np.asarray(kernel) + bias, atol=1e-6)


def test_stand_ins_are_what_their_names_say():
    batch, present = toy.batch(3), np.array([[True, False]] * 3)
    for stand_in in STAND_INS:
        model = toy.model(stand_in=stand_in)
        variables = toy.variables(model)
        if stand_in == "token":
            variables["params"]["tokens_b"]["feature"] += 7.0
        found = model.apply(variables, batch["inputs"], present, means=toy.means())["features/b"]
        complete = model.apply(
            variables,
            {**batch["inputs"], "b": np.repeat(toy.means()["b"], 3, axis=0)},
            np.ones((3, 2), bool),
            means=toy.means(),
        )["features/b"]
        expected = {"zero": np.zeros((3, 4)), "token": np.full((3, 4), 7.0), "mean": complete}[stand_in]
        np.testing.assert_allclose(found, expected, atol=1e-6)


@pytest.mark.parametrize("names", [("a", "b"), ("a", "b", "c")])
@pytest.mark.parametrize("stand_in", STAND_INS)
def test_stratified_layout_agrees_row_for_row_with_computing_every_row(names, stand_in):
    """Same masks: outputs, batch statistics and gradients are those of the plain form, in training mode."""
    model = toy.model(names, stand_in=stand_in, preprocess=toy.jitter, dropout=0.3)
    variables, batch = toy.variables(model, names), toy.batch(26, names)
    policy = missing.policy_from_config({"augment": True, "keep": {}}, names)
    layout = missing.stratified_layout(policy, 26)
    present, _ = layout.draw(row_keys(26), jnp.asarray(batch["present"]))

    def run(params, layout):
        outputs, updates = model.apply(
            {**variables, "params": params},
            batch["inputs"],
            present,
            train=True,
            keys=row_keys(26, 1),
            layout=layout,
            means=toy.means(names),
            mutable=["batch_stats"],
        )
        return jnp.square(outputs["logits"]).sum(), (outputs, updates)

    plain = jax.value_and_grad(lambda p: run(p, None), has_aux=True)(variables["params"])
    compact = jax.value_and_grad(lambda p: run(p, layout), has_aux=True)(variables["params"])
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-5, atol=2e-6), compact, plain)


def test_frozen_encoder_gets_no_gradient_and_keeps_its_statistics():
    model, batch = toy.model(frozen=("a",)), toy.batch(8)
    variables = toy.variables(model)

    def run(params):
        outputs, updates = model.apply(
            {**variables, "params": params},
            batch["inputs"],
            batch["present"],
            train=True,
            keys=row_keys(8),
            mutable=["batch_stats"],
        )
        return jnp.square(outputs["logits"]).sum(), updates

    gradients, updates = jax.grad(run, has_aux=True)(variables["params"])
    assert all(not leaf.any() for leaf in jax.tree.leaves(gradients["encoders_a"]))
    assert all(leaf.any() for leaf in jax.tree.leaves(gradients["encoders_b"]["Dense_0"]["kernel"]))
    before, after = variables["batch_stats"], updates["batch_stats"]
    jax.tree.map(np.testing.assert_array_equal, after["encoders_a"], before["encoders_a"])
    assert (after["encoders_b"]["BatchNorm_0"]["mean"] != before["encoders_b"]["BatchNorm_0"]["mean"]).any()


def test_dropout_keeps_the_mean_and_the_rate():
    model = toy.model(dropout=0.5)
    variables, batch = toy.variables(model), toy.batch(2000)
    kept, _ = model.apply(
        variables, batch["inputs"], batch["present"], train=True, keys=row_keys(2000), mutable=["batch_stats"]
    )
    share = (kept["features/a"] == 0).mean()
    assert abs(share - 0.5) < 0.03


def test_encoders_are_found_by_name_and_by_path():
    assert encoder_module("lenet").__name__ == "umemma_jax.encoders.lenet"
    with pytest.raises(UserError, match="no_such"):
        encoder_module("no_such")
    with pytest.raises(UserError, match="exports no Model"):
        encoder_module("umemma_jax.errors")
