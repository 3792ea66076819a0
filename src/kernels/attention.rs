use super::{
    STEP,
    heads::{Heads, REACH, reach, softmax},
    kv::{Cache, CachePart},
    reduce,
};
use crate::{
    buffers::{BLOCK, Buffer, Buffers, Content, Per, Rows, Sizes, Use},
    capabilities::Capabilities,
    kernel::{Cost, Dispatch, Grid, Kernel, Splits, Target},
    memory::Memory,
    shader::Program,
    simd::{Cpu, Job, KeyProducts, Lanes, Mix, Products, Shared2d, exp, highest, sum},
    step::Step,
    weights::Vector,
    workload::{Phase, Workload},
};
use std::ops::Range;

/// y = softmax(q k · scale) v over the positions so far, or the last `window` of them. `qkv` is
/// `[rows, (n_heads + 2 n_kv_heads) · head_dim]`, y `[rows, n_heads · head_dim]`. `scalars` holds `scale` and
/// `window` (0: none): values in a buffer rather than constants, so that layers which differ in them share a
/// program.
///
/// For few rows a device splits the context, and writes the partial result of each split to `partials`.
pub fn attention(qkv: Rows, cache: &Cache, scalars: Vector, partials: Partials, y: Rows) -> Attention {
    assert_eq!(y.width % cache.head_dim, 0, "whole heads");
    Attention { heads: Heads::new(y.width / cache.head_dim, qkv, cache, scalars), partials, y }
}

/// The buffer for the partial results of the splits of the context, as shaders/attention/split.wgsl writes
/// them.
#[derive(Clone, Copy, Debug)]
pub struct Partials {
    buffer: Buffer,
    /// Positions in a split, and the number of splits of the longest context.
    split: u32,
    splits: u32,
}

impl Partials {
    /// Declares the buffer for `n_heads` query heads. Splits start at multiples of a fixed number of
    /// positions, so that a row's sums do not depend on the contexts of other rows.
    pub fn declare(
        buffers: &mut Buffers,
        n_heads: u32,
        head_dim: u32,
        can: &Capabilities,
        sizes: &Sizes,
    ) -> Self {
        // A workgroup has a thread per position of a split, and needs at least one per vec4 of a head.
        let split = can.split.max(head_dim.div_ceil(4).next_power_of_two());
        let splits = sizes.context.div_ceil(split);
        let content = Content::Partials { per: Per::Row, stride: n_heads * splits * (head_dim + 2) };
        Self { buffer: buffers.declare("partials", content), split, splits }
    }
}

pub struct Attention {
    heads: Heads,
    partials: Partials,
    y: Rows,
}

impl Attention {
    /// The dispatch for many rows: tiled.wgsl.
    fn tiled(&self, part: &CachePart) -> Dispatch {
        let (dim, heads) = (self.heads.dim(), self.heads.of(part));
        // One thread per vec4 of each row; as many positions as fit into the smallest workgroup memory that
        // WebGPU allows.
        let fours = dim.div_ceil(4);
        let rows = (256 / fours).clamp(1, 16);
        let keys = (512 / fours.next_power_of_two()).clamp(1, 16);
        let mut constants = self.heads.constants(part, self.y);
        constants.extend([("ROWS", rows.into()), ("KEYS", keys.into()), ("HEADS", heads.into())]);
        Dispatch {
            program: Program {
                name: "attention_tiled",
                source: include_str!("../../shaders/attention/tiled.wgsl"),
                imports: self.heads.imports(part),
                constants,
            },
            uses: self.heads.bound(part, self.y),
            grid: Grid { rows, ..Grid::per_row(heads) },
        }
    }

    /// The dispatch for few rows, over splits of the context: split.wgsl.
    fn split(&self, target: &Target, part: &CachePart) -> Dispatch {
        let group = self.heads.group();
        let at_once = (1..=4).rev().find(|n| group.is_multiple_of(*n)).expect("one always fits");
        let bundles = self.heads.of(part) / at_once;
        let mut constants = self.heads.constants(part, self.y);
        constants.extend(self.of_splits());
        constants.extend([("AT_ONCE", at_once.into()), ("BUNDLES", bundles.into())]);
        let mut imports = self.heads.imports(part);
        imports.push(reduce(target));
        Dispatch {
            program: Program {
                name: "attention_split",
                source: include_str!("../../shaders/attention/split.wgsl"),
                imports,
                constants,
            },
            uses: [&self.heads.bound(part, self.y)[..], &[Use::Write(self.partials.buffer)]].concat(),
            grid: Grid { splits: Splits::Each(self.partials.split), ..Grid::per_row(bundles) },
        }
    }

    fn merge(&self) -> Dispatch {
        let mut constants = self.of_splits();
        constants.extend([("HEAD_DIM", self.heads.dim().into()), ("Y_STRIDE", self.y.stride().into())]);
        Dispatch {
            program: Program {
                name: "attention_merge",
                source: include_str!("../../shaders/attention/merge.wgsl"),
                imports: vec![STEP, REACH],
                constants,
            },
            uses: vec![
                Use::Read(self.partials.buffer),
                Use::Read(self.heads.scalars.buffer),
                Use::Write(self.y.buffer),
            ],
            grid: Grid { splits: Splits::Beyond(self.partials.split), ..Grid::per_row(self.heads.count) },
        }
    }

    /// The constants that split.wgsl and merge.wgsl share.
    fn of_splits(&self) -> Vec<(&'static str, f64)> {
        vec![
            ("SPLIT", self.partials.split.into()),
            ("SPLITS", self.partials.splits.into()),
            ("HEADS", self.heads.count.into()),
        ]
    }
}

impl Kernel for Attention {
    fn name(&self) -> &'static str {
        "attention"
    }
    fn note(&self) -> String {
        let Heads { count, cache, .. } = &self.heads;
        format!("{count} heads of {} over {}{}", cache.head_dim, cache.n_kv_heads, cache.note())
    }
    fn uses(&self) -> Vec<Use> {
        let written = [Use::Write(self.partials.buffer), Use::Write(self.y.buffer)];
        self.heads.uses().chain(written).collect()
    }
    fn dispatches(&self, target: &Target) -> Vec<Dispatch> {
        let parts = self.heads.cache.parts.iter();
        match target.phase {
            Phase::Prefill => parts.map(|part| self.tiled(part)).collect(),
            Phase::Decode => parts.map(|part| self.split(target, part)).chain([self.merge()]).collect(),
        }
    }
    fn cost(&self, load: &Workload) -> Cost {
        let (rows, context, width) = (u64::from(load.rows), u64::from(load.context), u64::from(self.y.width));
        let bytes = context * self.heads.cache.slot_bytes() + 8 * rows * width;
        Cost { bytes, flops: 4 * rows * context * width }
    }
    fn run(&self, memory: &Memory, step: &Step) {
        let dim = self.heads.dim() as usize;
        let [scale, window] = self.heads.scalars(memory);
        let (qkv, mut y) = (memory.read(self.heads.qkv.buffer), memory.write(self.y.buffer));
        let rows = qkv.chunks(self.heads.qkv.stride() as usize).zip(y.chunks_mut(self.y.stride() as usize));
        for (row, (qkv, y)) in step.rows.iter().zip(rows) {
            for head in 0..self.heads.count {
                let q = &qkv[head as usize * dim..][..dim];
                let (kv_head, _, part) = self.heads.part_of(head);
                let cache = memory.read(part.buffer);
                let mut weights: Vec<f32> = reach(step, row, window)
                    .map(|p| {
                        let key = part.key(&cache, kv_head, step.slot(row.sequence, p));
                        q.iter().zip(&key).map(|(q, k)| q * scale * k).sum()
                    })
                    .collect();
                softmax(&mut weights);
                let y = &mut y[head as usize * dim..][..dim];
                y.fill(0.0);
                for (weight, p) in weights.iter().zip(reach(step, row, window)) {
                    let value = part.value(&cache, kv_head, step.slot(row.sequence, p));
                    y.iter_mut().zip(&value).for_each(|(y, v)| *y += weight * v);
                }
            }
        }
    }
    fn run_fast(&self, memory: &Memory, step: &Step, phase: Phase, cpu: &Cpu) {
        let [scale, window] = self.heads.scalars(memory);
        let caches: Vec<_> = self.heads.cache.parts.iter().map(|p| memory.read(p.buffer)).collect();
        let caches: Vec<&[f32]> = caches.iter().map(|c| &c[..]).collect();
        let (qkv, mut y) = (memory.read(self.heads.qkv.buffer), memory.write(self.y.buffer));
        let (qkv, y) = (&qkv[..], Shared2d::new(&mut y, self.y.stride() as usize));
        // A piece of work is one key head and a tile of consecutive rows: those rows and all query heads that
        // share the key head read the same keys.
        let tiles = tiles(step);
        let (group, n_kv_heads) = (self.heads.group(), self.heads.cache.n_kv_heads as usize);
        let positions: u64 = step.rows.iter().map(|r| u64::from(reach(step, r, window).len() as u32)).sum();
        cpu.for_each(4 * positions * u64::from(self.y.width), tiles.len() * n_kv_heads, |piece| {
            // Start with the last tile: its rows attend to the most positions, so it takes longest.
            let tile = tiles[tiles.len() - 1 - piece / n_kv_heads].clone();
            let heads = (piece % n_kv_heads) as u32 * group..((piece % n_kv_heads) as u32 + 1) * group;
            let (kv_head, index, part) = self.heads.part_of(heads.start);
            let queries: Vec<(usize, u32)> =
                tile.flat_map(|row| heads.clone().map(move |head| (row, head))).collect();
            cpu.simd.run(Attend {
                step,
                phase,
                qkv,
                y,
                attention: self,
                cache: caches[index],
                part,
                kv_head,
                scale,
                window,
                queries,
            });
        });
    }
}

/// Rows in a tile.
const TILE: usize = 32;

/// Splits a step's rows into runs of consecutive rows of one sequence, of at most `TILE` rows.
fn tiles(step: &Step) -> Vec<Range<usize>> {
    let mut tiles: Vec<Range<usize>> = Vec::new();
    for (index, row) in step.rows.iter().enumerate() {
        match tiles.last_mut() {
            Some(tile) if tile.len() < TILE && step.rows[tile.start].sequence == row.sequence => {
                tile.end += 1;
            }
            _ => tiles.push(index..index + 1),
        }
    }
    tiles
}

/// Attention for queries that share a sequence and a key head.
struct Attend<'a> {
    step: &'a Step,
    phase: Phase,
    qkv: &'a [f32],
    y: Shared2d<'a>,
    attention: &'a Attention,
    cache: &'a [f32],
    part: &'a CachePart,
    kv_head: u32,
    scale: f32,
    window: f32,
    /// The row and the query head of each query.
    queries: Vec<(usize, u32)>,
}

impl Job for Attend<'_> {
    type Out = ();
    #[inline(always)]
    fn run<L: Lanes>(self) {
        let Self { step, phase, qkv, y, attention, cache, part, kv_head, scale, window, queries } = self;
        let dim = attention.heads.dim() as usize;
        let rows = || queries.iter().map(|(row, _)| &step.rows[*row]);
        let sequence = step.rows[queries[0].0].sequence;
        let start = rows().map(|row| reach(step, row, window).start).min().expect("a query");
        let end = rows().map(|row| reach(step, row, window).end).max().expect("a query");
        // The blocks of the cache, within which slots are consecutive: positions, and the first one's slot.
        let blocks = || {
            (start / BLOCK..end.div_ceil(BLOCK)).map(|block| {
                let positions = start.max(block * BLOCK)..end.min((block + 1) * BLOCK);
                let slot = step.slot(sequence, positions.start);
                (positions, slot)
            })
        };
        let mut q: Vec<&[f32]> = Vec::with_capacity(queries.len());
        for (row, head) in &queries {
            q.push(&qkv[row * attention.heads.qkv.stride() as usize + *head as usize * dim..][..dim]);
        }
        let span = (end - start) as usize;
        let mut weights = vec![0.0f32; queries.len() * span];
        for (positions, slot) in blocks() {
            let keys = part.keys(cache, kv_head, slot, positions.len());
            let rows = keys.packed();
            let out = &mut weights[(positions.start - start) as usize..];
            // The choice depends on the plan alone. Within each branch, the number of queries changes no sum.
            match phase {
                Phase::Prefill => KeyProducts { rows, x: &q, out, stride: span }.run::<L>(),
                Phase::Decode => Products { rows, x: &q, out, stride: span }.run::<L>(),
            }
        }
        let mut out: Vec<&mut [f32]> = Vec::with_capacity(queries.len());
        for (i, (row, head)) in queries.iter().enumerate() {
            let seen = reach(step, &step.rows[*row], window);
            let weights = &mut weights[i * span..][..span];
            let (from, to) = ((seen.start - start) as usize, (seen.end - start) as usize);
            weights[..from].fill(0.0);
            weights[to..].fill(0.0);
            softmax_scaled(&mut weights[from..to], scale);
            // SAFETY: each head of a row belongs to exactly one piece.
            let y = unsafe { y.part(*row, *head as usize * dim..(*head as usize + 1) * dim) };
            y.fill(0.0);
            out.push(y);
        }
        for (positions, slot) in blocks() {
            let weights = &weights[(positions.start - start) as usize..];
            let values = part.values(cache, kv_head, slot, positions.len());
            Mix { rows: values.packed(), weights, weights_stride: span, out: &mut out[..] }.run::<L>();
        }
    }
}

/// Turns scores into softmax(scores · scale), in place.
#[inline(always)]
fn softmax_scaled(scores: &mut [f32], scale: f32) {
    for score in &mut *scores {
        *score *= scale;
    }
    let top = highest(scores);
    for score in &mut *scores {
        *score = exp(*score - top);
    }
    let by = 1.0 / sum(scores);
    for score in scores {
        *score *= by;
    }
}
