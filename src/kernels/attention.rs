use super::{Cache, CachePart, Cost, Dispatch, Grid, Kernel, STEP, Target, reduce};
use crate::{
    memory::Memory,
    plan::{Rows, Use},
    shader::Program,
    simd::Cpu,
    step::{Load, Row, Step},
    weights::Vector,
};
use rayon::prelude::*;
use std::ops::Range;

/// y = softmax(q k · scale) v over the positions so far, or the last `window` of them; `scale` and `window` (0:
/// none) are the two values of `scalars`, so that layers which differ in them share a program.
pub fn attention(qkv: Rows, cache: &Cache, scalars: Vector, y: Rows) -> Attention {
    assert_eq!(y.width % cache.head_dim, 0, "whole heads");
    let n_heads = y.width / cache.head_dim;
    assert_eq!(n_heads % cache.n_kv_heads, 0, "{n_heads} heads over {} key heads", cache.n_kv_heads);
    assert_eq!(scalars.at, 0, "the layer's vectors begin with scale and window");
    Attention { qkv, cache: cache.clone(), scalars, y }
}

pub struct Attention {
    qkv: Rows,
    cache: Cache,
    scalars: Vector,
    y: Rows,
}

impl Attention {
    /// Query heads that share a key head.
    fn group(&self) -> u32 {
        self.y.width / self.cache.head_dim / self.cache.n_kv_heads
    }

    /// The part of the cache that holds what a query head looks at, and where in a slot its keys start.
    fn part_of(&self, head: u32) -> (usize, &CachePart, usize) {
        let kv_head = head / self.group();
        let (index, part) = self
            .cache
            .parts
            .iter()
            .enumerate()
            .find(|(_, part)| part.heads.contains(&kv_head))
            .expect("the parts hold all heads");
        (index, part, ((kv_head - part.heads.start) * self.cache.head_dim) as usize)
    }
}

/// The positions that a row sees.
fn reach(row: &Row, window: f32) -> Range<u32> {
    let end = row.position + 1;
    let window = if window > 0.0 { window as u32 } else { end };
    end.saturating_sub(window)..end
}

/// Scores → weights that add up to one.
fn softmax(scores: &mut [f32]) {
    let top = scores.iter().copied().fold(f32::MIN, f32::max);
    let mut total = 0.0;
    for score in scores.iter_mut() {
        *score = (*score - top).exp();
        total += *score;
    }
    for score in scores {
        *score /= total;
    }
}

impl Kernel for Attention {
    fn name(&self) -> &'static str {
        "attention"
    }
    fn note(&self) -> String {
        let (n, dim) = (self.cache.n_kv_heads, self.cache.head_dim);
        format!("{} heads of {dim} over {n}", n * self.group())
    }
    fn uses(&self) -> Vec<Use> {
        let parts = self.cache.parts.iter().map(|p| Use::Read(p.buffer));
        std::iter::once(Use::Read(self.qkv.buffer))
            .chain(parts)
            .chain([Use::Read(self.scalars.buffer), Use::Write(self.y.buffer)])
            .collect()
    }
    fn dispatches(&self, target: &Target) -> Vec<Dispatch> {
        let dispatch = |part: &CachePart| {
            let heads = part.heads.len() as u32 * self.group();
            Dispatch {
                program: Program {
                    name: "attention",
                    source: include_str!("../../shaders/attention.wgsl"),
                    imports: vec![STEP, reduce(target)],
                    constants: vec![
                        ("HEAD_DIM", self.cache.head_dim.into()),
                        ("HEADS", heads.into()),
                        ("FIRST_HEAD", (part.heads.start * self.group()).into()),
                        ("GROUP", self.group().into()),
                        ("STRIDE", self.qkv.stride().into()),
                        ("WIDTH", part.width(self.cache.head_dim).into()),
                        ("Y_STRIDE", self.y.stride().into()),
                    ],
                },
                uses: vec![
                    Use::Read(self.qkv.buffer),
                    Use::Read(part.buffer),
                    Use::Read(self.scalars.buffer),
                    Use::Write(self.y.buffer),
                ],
                grid: Grid::per_row(heads),
            }
        };
        self.cache.parts.iter().map(dispatch).collect()
    }
    fn cost(&self, load: &Load) -> Cost {
        let (rows, context) = (u64::from(load.rows), u64::from(load.context));
        let (width, kv_width) =
            (u64::from(self.y.width), u64::from(self.cache.n_kv_heads * self.cache.head_dim));
        Cost { bytes: 8 * context * kv_width + 8 * rows * width, flops: 4 * rows * context * width }
    }
    fn run(&self, memory: &Memory, step: &Step) {
        let dim = self.cache.head_dim as usize;
        let [scale, window] = *self.scalars.of(memory) else { panic!("scale and window") };
        let (qkv, mut y) = (memory.read(self.qkv.buffer), memory.write(self.y.buffer));
        let rows = qkv.chunks(self.qkv.stride() as usize).zip(y.chunks_mut(self.y.stride() as usize));
        for (row, (qkv, y)) in step.rows.iter().zip(rows) {
            for head in 0..self.y.width / self.cache.head_dim {
                let q = &qkv[head as usize * dim..][..dim];
                let (_, part, at) = self.part_of(head);
                let width = part.width(self.cache.head_dim) as usize;
                let cache = memory.read(part.buffer);
                let keys = |p| step.slot(row.sequence, p) as usize * 2 * width + at;
                let mut weights: Vec<f32> = reach(row, window)
                    .map(|p| {
                        let key = &cache[keys(p)..][..dim];
                        q.iter().zip(key).map(|(q, k)| q * scale * k).sum()
                    })
                    .collect();
                softmax(&mut weights);
                let y = &mut y[head as usize * dim..][..dim];
                y.fill(0.0);
                for (weight, p) in weights.iter().zip(reach(row, window)) {
                    let value = &cache[keys(p) + width..][..dim];
                    y.iter_mut().zip(value).for_each(|(y, v)| *y += weight * v);
                }
            }
        }
    }
    fn run_fast(&self, memory: &Memory, step: &Step, cpu: &Cpu) {
        let dim = self.cache.head_dim as usize;
        let [scale, window] = *self.scalars.of(memory) else { panic!("scale and window") };
        let caches: Vec<_> = self.cache.parts.iter().map(|p| memory.read(p.buffer)).collect();
        let caches: Vec<&[f32]> = caches.iter().map(|c| &c[..]).collect();
        let qkv = memory.read(self.qkv.buffer);
        let (qkv, mut y) = (&*qkv, memory.write(self.y.buffer));
        let (stride, width) = (self.y.stride() as usize, self.y.width as usize);
        // One piece of work for each row and head; each is summed by one thread, in the order of positions.
        let mut work: Vec<(usize, u32, &mut [f32])> = Vec::with_capacity(step.rows.len() * width / dim);
        for (index, y) in y.chunks_mut(stride).take(step.rows.len()).enumerate() {
            work.extend(y[..width].chunks_mut(dim).zip(0..).map(|(y, head)| (index, head, y)));
        }
        let attend = |scores: &mut Vec<f32>, (index, head, y): (usize, u32, &mut [f32])| {
            let row = &step.rows[index];
            let q = &qkv[index * self.qkv.stride() as usize + head as usize * dim..][..dim];
            let (part, layout, at) = self.part_of(head);
            let (cache, width) = (caches[part], layout.width(self.cache.head_dim) as usize);
            let keys = |p| step.slot(row.sequence, p) as usize * 2 * width + at;
            scores.clear();
            scores.extend(reach(row, window).map(|p| scale * cpu.simd.dot(q, &cache[keys(p)..][..dim])));
            softmax(scores);
            y.fill(0.0);
            for (weight, p) in scores.iter().zip(reach(row, window)) {
                let value = &cache[keys(p) + width..][..dim];
                y.iter_mut().zip(value).for_each(|(y, v)| *y += weight * v);
            }
        };
        let positions: u64 = step.rows.iter().map(|r| u64::from(reach(r, window).len() as u32)).sum();
        if positions * self.y.width as u64 * 2 < cpu.worth_threads {
            let mut scores = Vec::new();
            work.into_iter().for_each(|piece| attend(&mut scores, piece));
        } else {
            work.into_par_iter().for_each_init(Vec::new, attend);
        }
    }
}
