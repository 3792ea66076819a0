use super::{
    STEP,
    kv::{Cache, CachePart},
};
use crate::{
    buffers::{Rows, Use},
    kernel::{Cost, Dispatch, Grid, Kernel, Target},
    memory::Memory,
    shader::Program,
    step::Step,
    workload::Workload,
};

/// `cache[slot of the row's position]` = the row's keys and values, which stand last in `qkv`.
pub fn kv_write(qkv: Rows, cache: &Cache) -> KvWrite {
    KvWrite { qkv, cache: cache.clone() }
}

pub struct KvWrite {
    qkv: Rows,
    cache: Cache,
}

impl KvWrite {
    /// Numbers in the keys (or in the values) of one row, over all heads.
    pub(super) fn width(&self) -> u32 {
        self.cache.n_kv_heads * self.cache.head_dim
    }
    pub(super) fn parts(&self) -> &[CachePart] {
        &self.cache.parts
    }
    pub(super) fn cache(&self) -> &Cache {
        &self.cache
    }
    /// Where a part's keys start in a row of qkv, and where its values start.
    fn starts(&self, part: &CachePart) -> (u32, u32) {
        let width = self.width();
        let keys = self.qkv.width - 2 * width + part.heads.start * self.cache.head_dim;
        (keys, keys + width)
    }
}

impl Kernel for KvWrite {
    fn name(&self) -> &'static str {
        "kv_write"
    }
    fn note(&self) -> String {
        self.cache.note().trim_start_matches(", ").to_owned()
    }
    fn uses(&self) -> Vec<Use> {
        let parts = self.cache.parts.iter().map(|p| Use::Write(p.buffer));
        std::iter::once(Use::Read(self.qkv.buffer)).chain(parts).collect()
    }
    fn dispatches(&self, _: &Target) -> Vec<Dispatch> {
        let dispatch = |part: &CachePart| {
            let width = part.width();
            let (keys, values) = self.starts(part);
            let mut imports = vec![STEP];
            imports.extend(part.format.write());
            Dispatch {
                program: Program {
                    name: "kv_write",
                    source: include_str!("../../shaders/kv/write.wgsl"),
                    imports,
                    constants: vec![
                        ("KV_WIDTH", width.into()),
                        ("KEYS_AT", keys.into()),
                        ("VALUES_AT", values.into()),
                        ("STRIDE", self.qkv.stride().into()),
                    ],
                },
                uses: vec![Use::Read(self.qkv.buffer), Use::Write(part.buffer)],
                grid: Grid::per_row((width / part.format.unit()).div_ceil(64)),
            }
        };
        self.cache.parts.iter().map(dispatch).collect()
    }
    fn cost(&self, load: &Workload) -> Cost {
        let rows = u64::from(load.rows);
        Cost { bytes: rows * (8 * u64::from(self.width()) + self.cache.slot_bytes()), flops: 0 }
    }
    fn run(&self, memory: &Memory, step: &Step) {
        let qkv = memory.read(self.qkv.buffer);
        for part in &self.cache.parts {
            let width = part.width() as usize;
            let (keys, values) = self.starts(part);
            let mut cache = memory.write(part.buffer);
            for (row, qkv) in step.rows.iter().zip(qkv.chunks(self.qkv.stride() as usize)) {
                let slot = step.slot(row.sequence, row.position);
                let (keys, values) = (&qkv[keys as usize..][..width], &qkv[values as usize..][..width]);
                part.write(&mut cache, slot, keys, values);
            }
        }
    }
}
