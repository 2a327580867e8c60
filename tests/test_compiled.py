"""What `benchmarks.compiled` reads from a compiler's text, by programs small enough to count by hand."""

import pytest

from benchmarks.compiled import hlo
from benchmarks.compiled.__main__ import largest

ESTIMATE = 'backend_config={{"window_config":{{"estimated_cycles":"{}"}}}}'
LOOP = f"""HloModule jit_step, is_scheduled=true, input_output_alias={{ {{0}}: (0, {{}}, may-alias), {{1}}: (2, {{}}, may-alias) }}

FileNames
1 "/home/user/run.py"
2 "/home/user/umemma_jax/encoders/vit.py"
3 "/site-packages/flax/linen/linear.py"

FunctionNames
1 "main"

FileLocations
1 {{file_name_id=1 function_name_id=1 line=7 end_line=7 column=2 end_column=3}}
2 {{file_name_id=2 function_name_id=1 line=87 end_line=88 column=2 end_column=3}}
3 {{file_name_id=3 function_name_id=1 line=5 end_line=5 column=2 end_column=3}}

StackFrames
1 {{file_location_id=1 parent_frame_id=1}}
2 {{file_location_id=2 parent_frame_id=2}}
3 {{file_location_id=3 parent_frame_id=3}}

%product (a: bf16[8,4], b: f32[4,2]) -> bf16[8,2] {{
  %a = bf16[8,4]{{1,0:T(8,128)(2,1)}} parameter(0)
  %b = f32[4,2]{{1,0:T(8,128)}} parameter(1)
  ROOT %dot = bf16[8,2]{{1,0:T(8,128)}} convolution(%a, %b), dim_labels=bf_io->bf, metadata={{op_name="jit(step)/dot" stack_frame_id=2}}
}}

%cast (c: bf16[8,2]) -> f32[2,8] {{
  %c = bf16[8,2]{{1,0}} parameter(0)
  %wide = f32[8,2]{{1,0}} convert(%c)
  ROOT %turned = f32[2,8]{{1,0}} transpose(%wide), dimensions={{1,0}}
}}

%add (x: f32[], y: f32[]) -> f32[] {{
  %x = f32[] parameter(0)
  %y = f32[] parameter(1)
  ROOT %plus = f32[] add(%x, %y)
}}

%body (state: (s32[], f32[16])) -> (s32[], f32[16]) {{
  %state = (s32[]{{:T(128)}}, /*index=1*/f32[16]{{0:T(128)}}) parameter(0)
  %count = s32[]{{:T(128)}} get-tuple-element(%state), index=0
  %fusion.1 = bf16[8,2]{{1,0}} fusion(%count), kind=kOutput, calls=%product, metadata={{op_name="x" stack_frame_id=3}}, {ESTIMATE.format(100)}
  %sum = f32[16]{{0:T(128)}} all-reduce(%count), channel_id=1, to_apply=%add
  ROOT %next = (s32[], f32[16]) tuple(%count, %sum)
}}

%condition (state.1: (s32[], f32[16])) -> pred[] {{
  %limit = s32[]{{:T(128)}} constant(7)
  %state.1 = (s32[], f32[16]) parameter(0)
  %count.1 = s32[] get-tuple-element(%state.1), index=0
  ROOT %less = pred[]{{:T(512)}} compare(%count.1, %limit), direction=LT
}}

ENTRY %main (p: f32[16]) -> f32[2,8] {{
  %p = f32[16]{{0:T(128)}} parameter(0)
  %while = (s32[], f32[16]) while(%p), condition=%condition, body=%body
  %fusion.2 = f32[2,8]{{1,0}} fusion(%while), kind=kLoop, calls=%cast, metadata={{op_name="y" stack_frame_id=2}}, {ESTIMATE.format(50)}
  ROOT %copy = f32[2,8]{{0,1}} copy(%fusion.2), {ESTIMATE.format(10)}
}}
"""  # noqa: E501


@pytest.fixture
def module():
    return hlo.parse(LOOP)


def test_cycles_are_summed_and_loops_counted_by_their_trips(module):
    assert module.cycles == 7 * 100 + 50 + 10


def test_what_only_casts_turns_and_copies_is_moved(module):
    assert module.moved == 50 + 10


def test_cycles_come_from_the_innermost_line_in_the_package(module):
    assert module.costly(3) == [
        ("encoders/vit.py:87", "product", 700, 1),
        ("encoders/vit.py:87", "moved", 50, 1),
        ("?", "moved", 10, 1),
    ]


def test_collectives_are_counted_as_often_as_they_run(module):
    assert module.collectives() == {"all-reduce": (7, 7 * 16 * 4)}


def test_products_have_the_dtypes_of_their_operands(module):
    assert module.products() == [hlo.Product(("bf16", "f32"), "jit(step)/dot", "encoders/vit.py:87")]


def test_results_in_the_memory_of_arguments(module):
    assert module.aliased == 2


def test_a_loop_whose_trips_are_not_known_is_an_error():
    with pytest.raises(ValueError, match="while: the number of trips is not known"):
        _ = hlo.parse(LOOP.replace("constant(7)", "parameter(1)")).cycles


def conditional(*cycles):
    branches = "\n\n".join(
        f"%branch.{number} (x: f32[]) -> f32[] {{\n  ROOT %x = f32[] copy(%x), {ESTIMATE.format(value)}\n}}"
        for number, value in enumerate(cycles)
    )
    names = ", ".join(f"%branch.{number}" for number in range(len(cycles)))
    return (
        f"HloModule m\n\n{branches}\n\nENTRY %main (p: f32[]) -> f32[] {{\n"
        f"  ROOT %c = f32[] conditional(%p, %p), branch_computations={{{names}}}\n}}\n"
    )


def test_of_a_conditional_the_cheapest_branch_counts():
    assert hlo.parse(conditional(30, 20, 90)).cycles == 20


def test_a_collective_in_pieces_counts_once():
    text = """HloModule m

%piece (x: f32[2]) -> f32[8] {
  %x = f32[2]{0} parameter(0)
  ROOT %all-gather.1 = f32[8]{0} all-gather(%x), channel_id=5, dimensions={0}
}

ENTRY %main (p: f32[2]) -> f32[8] {
  %p = f32[2]{0} parameter(0)
  %fusion.1 = f32[8]{0} fusion(%p), kind=kCustom, calls=%piece
  ROOT %fusion.2 = f32[8]{0} fusion(%fusion.1), kind=kCustom, calls=%piece
}
"""
    assert hlo.parse(text).collectives() == {"all-gather": (1, 32)}


def test_asynchronous_collectives_count_once_and_scattered_sums_as_such():
    text = """HloModule m

%all-reduce-scatter.1 (x: f32[8]) -> f32[2] {
  %x = f32[8]{0} parameter(0)
  ROOT %all-reduce.1 = f32[8]{0} all-reduce(%x), to_apply=%add
}

ENTRY %main (p: f32[2]) -> f32[2] {
  %p = f32[2]{0} parameter(0)
  %all-gather-start = (f32[2]{0}, f32[8]{0}) all-gather-start(%p), dimensions={0}
  %all-gather-done = f32[8]{0} all-gather-done(%all-gather-start)
  ROOT %fusion = f32[2]{0} fusion(%all-gather-done), kind=kCustom, calls=%all-reduce-scatter.1
}
"""
    assert {kind: count for kind, (count, _) in hlo.parse(text).collectives().items()} == {
        "all-gather": 1,
        "reduce-scatter": 1,
    }


@pytest.mark.parametrize(
    ("type_", "size"),
    [("f32[]{:T(128)}", 4), ("bf16[3,5]{1,0:T(8,128)(2,1)S(1)}", 30), ("(s32[2]{0}, /*index=1*/pred[3]{0})", 11)],
)
def test_sizes_are_those_of_all_arrays(type_, size):
    assert hlo.size_of(type_) == size


def test_the_batch_that_fits_is_where_the_memory_of_two_batches_leads():
    """12 for a batch of 4 and 20 for one of 8 are 4 and 2 for each."""
    assert largest(8, 20, 12, most=30) == 13
