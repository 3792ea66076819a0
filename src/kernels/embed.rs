use super::{STEP, flag};
use crate::{
    buffers::{Buffer, Rows, Use},
    kernel::{Cost, Dispatch, Grid, Kernel, Target},
    memory::Memory,
    shader::Program,
    step::{FEATURE, Row, SAMPLED, Step},
    weights::Matrix,
    workload::Workload,
};

/// What selects the row of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    /// The row's token, or if that is [`SAMPLED`], the id last sampled for its sequence.
    Token,
    Position,
}

/// `y = table[token]` or `table[position]`: y is `[rows, columns]`. A row whose token is [`FEATURE`] is
/// skipped: [`super::splice`] fills it.
pub fn embed(table: &Matrix, by: By, ids: Buffer, y: Rows) -> Embed {
    assert_eq!(table.columns, y.width, "a table of as many columns as y");
    Embed { table: table.clone(), by, ids, y, add: false }
}

pub struct Embed {
    table: Matrix,
    by: By,
    ids: Buffer,
    y: Rows,
    add: bool,
}

impl Embed {
    /// Adds the table's rows to y instead of overwriting it.
    pub fn add(self) -> Self {
        Self { add: true, ..self }
    }

    fn wanted(&self, row: &Row, ids: &[u32]) -> u32 {
        match self.by {
            By::Position => row.position,
            By::Token if row.token == SAMPLED => ids[row.sequence as usize],
            By::Token => row.token,
        }
    }
}

impl Kernel for Embed {
    fn name(&self) -> &'static str {
        "embed"
    }
    fn note(&self) -> String {
        let by = format!("by {:?}", self.by).to_lowercase();
        format!("{by}, {}{}", self.table.formats(), if self.add { ", added" } else { "" })
    }
    fn uses(&self) -> Vec<Use> {
        let parts = self.table.parts.iter().map(|p| Use::Read(p.buffer));
        parts.chain([Use::Read(self.ids), Use::Write(self.y.buffer)]).collect()
    }
    fn dispatches(&self, _: &Target) -> Vec<Dispatch> {
        let dispatch = |part: &crate::weights::Part| {
            let weights = part.format.shader(self.table.columns);
            let program = Program {
                name: "embed",
                source: include_str!("../../shaders/embed.wgsl"),
                imports: [vec![STEP], weights.imports].concat(),
                constants: vec![
                    ("COLUMNS8", self.table.columns8().into()),
                    ("STRIDE", self.y.stride().into()),
                    ("WIDTH", self.y.width.into()),
                    ("FIRST", part.rows.start.into()),
                    ("ROWS", (part.rows.len() as u32).into()),
                    ("BY_POSITION", flag(self.by == By::Position)),
                    ("ADD", flag(self.add)),
                ]
                .into_iter()
                .chain(weights.constants)
                .collect(),
            };
            Dispatch {
                program,
                uses: vec![Use::Read(part.buffer), Use::Read(self.ids), Use::Write(self.y.buffer)],
                grid: Grid::per_row(self.table.columns8().div_ceil(64)),
            }
        };
        self.table.parts.iter().map(dispatch).collect()
    }
    fn cost(&self, load: &Workload) -> Cost {
        let row = self.table.parts[0].format.row_bytes(self.y.width as usize) as u64;
        Cost { bytes: u64::from(load.rows) * (row + 4 * u64::from(self.y.width)), flops: 0 }
    }
    fn run(&self, memory: &Memory, step: &Step) {
        let width = self.y.width as usize;
        let ids = memory.ids(self.ids);
        let mut y = memory.write(self.y.buffer);
        let mut values = vec![0.0; width];
        for (row, y) in step.rows.iter().zip(y.chunks_mut(self.y.stride() as usize)) {
            if self.by == By::Token && row.token == FEATURE {
                continue;
            }
            self.table.unpack_row(memory, self.wanted(row, &ids), &mut values);
            for (y, value) in y.iter_mut().zip(&values) {
                *y = if self.add { *y + value } else { *value };
            }
        }
    }
}
