//! Whether a device's cooperative matrices compute products as they are defined.

use super::compare;
use crate::{
    backend::{Backend, CpuBackend},
    buffers::{Buffers, Per, Rows, Sizes},
    capabilities::{Capabilities, Matrices},
    error::Result,
    kernels::matmul,
    plan::{Plan, Plans, Ports},
    simd::Math,
    step::{Row, Step},
    weights::{Format, Matrix, Order, Random, StoredRows, Tensor},
    workload::Phase,
};

/// More than a tile of rows, outputs and columns, and a multiple of none.
const ROWS: u32 = 137;
const OUTPUTS: u32 = 150;
const COLUMNS: u32 = 72;

/// Compares products of random values with their definition, in small tiles and, if there are such, in large
/// ones. `can` has the matrices that are checked; `prepare` loads a plan onto the device.
pub fn matrices_are_right<B: Backend>(
    can: &Capabilities,
    matrices: Matrices,
    prepare: impl Fn(&Capabilities, Plans) -> Result<B>,
) -> Result<bool> {
    let row = |position| Row { token: 0, position, sequence: 0 };
    let step = Step { rows: (0..ROWS).map(row).collect(), tables: vec![vec![0]], ..Step::default() };
    let mut random = Random(1);
    let values: Vec<f32> = (0..ROWS * COLUMNS).map(|_| random.value()).collect();
    let (x, plans) = product(can);
    let mut definition = CpuBackend::prepare(plans, 1, Math::F32, &|_| ())?.plain();
    definition.write(x, &values)?;
    for (_, matrices) in matrices.tiles() {
        let can = Capabilities { matrices: Some(matrices), ..can.clone() };
        let mut tested = prepare(&can, product(&can).1)?;
        tested.write(x, &values)?;
        if !compare(&mut definition, &mut tested, &can, (Phase::Prefill, 0), &step)?.ok {
            return Ok(false);
        }
    }
    Ok(true)
}

/// A plan of one product, and where its x is.
fn product(can: &Capabilities) -> (Rows, Plans) {
    let (mut buffers, mut prefill) = (Buffers::default(), Plan::new(Phase::Prefill));
    let tensor = Tensor::random("matrices", Format::F16, OUTPUTS as usize, COLUMNS as usize, 1);
    let rows = StoredRows::new(tensor, Format::F16, false, Order::AsStored);
    let w = Matrix::declare(&mut buffers, "w", vec![rows], &can.layout, None);
    let x = buffers.activation("x", Per::Row, COLUMNS);
    let y = buffers.activation("y", Per::Row, OUTPUTS);
    prefill.push(matmul(x, &w).to(y));
    let sizes =
        Sizes { rows: [ROWS, 1], outputs: 1, sequences: 1, guesses: 0, adapters: 0, context: 1, blocks: 1 };
    (x, Plans { buffers, sizes, plans: vec![prefill], ports: Ports::default() })
}
