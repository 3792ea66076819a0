//! What a device runs for a product: a program for each part of the matrix.

use super::{Epilogue, Matmul};
use crate::{
    architecture::{Activation, NormKind},
    buffers::Use,
    kernel::{Dispatch, Grid, Only, Splits, Target},
    kernels::{PAIR, STEP, flag, reduce},
    shader::Program,
    weights::Part,
    workload::Phase,
};

/// What a part's dispatch makes of its rows.
#[derive(Clone, Copy, PartialEq)]
enum Form {
    Plain,
    /// The part holds gate and up.
    Gated,
    /// The part holds only rows of up. An earlier dispatch has written the activated gate to y.
    Up,
}

impl Matmul {
    fn form(&self, part: &Part) -> Form {
        let n = self.y.width;
        match self.epilogue {
            Epilogue::Gated if part.rows.start >= n => Form::Up,
            Epilogue::Gated if part.rows.end > n => {
                assert_eq!(part.rows, 0..2 * n, "a part holds gate and up whole, or rows of one of them");
                Form::Gated
            }
            _ => Form::Plain,
        }
    }

    /// The dispatches of a part, of which a step runs one: for few rows there is a program for one row, and
    /// another for several.
    pub(super) fn dispatches_of(&self, target: &Target, part: &Part) -> Vec<Dispatch> {
        let only: &[Only] = match target.phase {
            Phase::Prefill => &[Only::Any],
            Phase::Decode => &[Only::One, Only::Several],
        };
        only.iter().map(|only| self.dispatch(target, part, *only)).collect()
    }

    fn dispatch(&self, target: &Target, part: &Part, only: Only) -> Dispatch {
        let (n, form) = (self.y.width, self.form(part));
        // A part with rows of up writes to the values of y that the gate's rows have written.
        let first = if form == Form::Up { part.rows.start - n } else { part.rows.start };
        let rows = if form == Form::Gated { n } else { part.rows.len() as u32 };
        let norm = self.x.norm;
        // The layer's small vectors; x where it has none to read.
        let vectors = norm.map(|n| n.weight.buffer).or(self.w.bias.map(|b| b.buffer));
        let mut uses = vec![
            Use::Read(part.buffer),
            Use::Read(self.x.rows.buffer),
            Use::Read(vectors.unwrap_or(self.x.rows.buffer)),
            Use::Write(self.y.buffer),
        ];
        let mut imports = vec![("operands", include_str!("../../../shaders/matmul/operands.wgsl")), STEP];
        let weights = part.format.shader(self.w.columns);
        imports.extend(weights.imports);
        let mut constants: Vec<(&str, f64)> = vec![
            ("COLUMNS8", self.w.columns8().into()),
            ("ROWS", rows.into()),
            ("FIRST", first.into()),
            ("STRIDE", self.y.stride().into()),
            ("BIAS_AT", self.w.bias.map_or(0, |b| b.at + part.rows.start).into()),
            ("BIAS", flag(self.w.bias.is_some())),
            ("GATED", flag(form == Form::Gated)),
            ("OUTPUTS", flag(self.picks_outputs())),
        ];
        constants.extend(&weights.constants);
        if let Epilogue::Qkv { rope, kv_write } = &self.epilogue {
            imports.push(("epilogue", include_str!("../../../shaders/matmul/cached.wgsl")));
            let kv = kv_write.width();
            constants.extend([("Q", (n - 2 * kv).into()), ("KV_WIDTH", kv.into())]);
            let part = &kv_write.parts()[0];
            imports.extend(part.format.write());
            uses.push(Use::Write(part.buffer));
            let turn = match rope {
                None => include_str!("../../../shaders/turn/none.wgsl"),
                Some(rope) => {
                    constants.push(("PAIRS", rope.pairs.into()));
                    uses.push(Use::Read(rope.table));
                    imports.push(PAIR);
                    include_str!("../../../shaders/turn/rotary.wgsl")
                }
            };
            imports.push(("turn", turn));
        } else {
            let activation = if form == Form::Up { Activation::None } else { self.activation };
            imports.push(("epilogue", include_str!("../../../shaders/matmul/epilogue.wgsl")));
            imports.push(("activation", activation.shader()));
            constants.extend([
                ("UP", n.into()),
                ("ADD", flag(matches!(self.epilogue, Epilogue::Add))),
                ("MULTIPLY", flag(form == Form::Up)),
            ]);
        }
        assert!(norm.is_none() || target.phase == Phase::Decode, "for many rows a norm is a pass of its own");
        // Matrices that fill no tile of cooperative matrices are not worth one.
        let lines = part.rows.len() as u32;
        let matrices = target.can.matrices.filter(|_| self.w.columns8() >= 4 && lines >= 32);
        // A workgroup takes `tile` rows of the part and `tile_rows` of x.
        let (name, source, tile, tile_rows) = match (target.phase, matrices) {
            (Phase::Prefill, Some(matrices)) => {
                imports.push(("matrices", matrices.shader()));
                let is_small = matrices.size == 16 && lines < matrices.large_from;
                let side = if is_small { 2 } else { 4 };
                let tile = 2 * side * matrices.size;
                // Four subgroups, however large; and no more of a tile than a thread can load at a time.
                let threads = (4 * matrices.max_subgroup).clamp(tile, 256);
                constants.extend([("WORKGROUP", threads.into()), ("SIDE", side.into())]);
                ("matmul_cooperative", include_str!("../../../shaders/matmul/cooperative.wgsl"), tile, tile)
            }
            (Phase::Prefill, None) => {
                ("matmul_tiled", include_str!("../../../shaders/matmul/tiled.wgsl"), 64, 64)
            }
            (Phase::Decode, _) => {
                imports.push(reduce(target));
                let norm_bias = norm.and_then(|n| n.bias);
                let lanes = self.w.columns.div_ceil(32);
                let most = if only == Only::One { 1 } else { 4 };
                // The products of each row of x; the norm's squares, and the products of its bias.
                let sums = most + u32::from(norm.is_some()) + u32::from(norm_bias.is_some());
                constants.extend([
                    ("LINES", target.can.lines.into()),
                    ("MOST", most.into()),
                    ("SUMS", sums.into()),
                    ("WORKGROUP", lanes.next_power_of_two().clamp(32, 128).into()),
                    ("RAGGED", flag(!self.w.columns.is_multiple_of(weights.unit))),
                    ("WIDTH", self.w.columns.into()),
                    ("NORM", flag(norm.is_some())),
                    ("NORM_CENTER", flag(norm.is_some_and(|n| n.kind == NormKind::Layer))),
                    ("NORM_BIAS", flag(norm_bias.is_some())),
                    ("NORM_WEIGHT_AT", norm.map_or(0, |n| n.weight.at).into()),
                    ("NORM_BIAS_AT", norm_bias.map_or(0, |b| b.at).into()),
                    ("EPSILON", norm.map_or(0.0, |n| n.epsilon.into())),
                ]);
                ("matmul_vector", include_str!("../../../shaders/matmul/vector.wgsl"), target.can.lines, 4)
            }
        };
        let outputs = if form == Form::Gated { tile / 2 } else { tile };
        let program = Program { name, source, imports, constants };
        Dispatch {
            program,
            uses,
            grid: Grid {
                groups: rows.div_ceil(outputs),
                per: self.y.per,
                rows: tile_rows,
                splits: Splits::Whole,
                only,
            },
        }
    }
}
