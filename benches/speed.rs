//! Benchmarks with criterion: `cargo bench`, or some of them by name, `cargo bench -- decode/gpt2`.
//!
//! They use known shapes with random weights and measure each kernel by format (`kernel`, timed on the device
//! itself), generating token after token (`decode`), prompts (`prefill`), loading from a checkpoint until the
//! device is ready (`load`), and the host's time to encode a decoded token, per dispatch (`encode`).
//! WGPT_BENCH_DEVICE, WGPT_BENCH_SHAPES and WGPT_BENCH_FORMATS choose the device, shapes and formats. Every
//! time comes with a rate; `wgpt bench --profile` shows rates as shares of the bandwidth that it measures.

use criterion::{BenchmarkGroup, BenchmarkId, Criterion, Throughput, measurement::WallTime};
use std::{env, str::FromStr, time::Duration};
use wgpt::{
    backend::{Device, DeviceChoice, GpuOptions},
    bench::{Bench, Test, TestKind},
    shapes,
    weights::Format,
};

const PREFILL: Test = Test { kind: TestKind::Prompt, tokens: 128, depth: 0, sequences: 1 };
const DECODE: Test = Test { kind: TestKind::Generate, tokens: 16, depth: 112, sequences: 1 };

fn setting(name: &str, default: &str) -> String {
    env::var(name).unwrap_or(default.to_owned())
}

fn device() -> Device {
    let choice = DeviceChoice::from(&*setting("WGPT_BENCH_DEVICE", "auto"));
    Device::open(&choice, false, None, GpuOptions::default()).unwrap_or_else(|e| panic!("{e}"))
}

/// The models to measure: shape and format.
fn models() -> Vec<(String, Format)> {
    let shapes = setting("WGPT_BENCH_SHAPES", "gpt2,smollm2-135m");
    let formats = setting("WGPT_BENCH_FORMATS", "f16,q8_0,q4_k");
    let format = |name: &str| Format::from_str(name).unwrap_or_else(|e| panic!("WGPT_BENCH_FORMATS: {e}"));
    let formats: Vec<Format> = formats.split(',').map(format).collect();
    shapes.split(',').flat_map(|shape| formats.iter().map(|f| (shape.to_owned(), *f))).collect()
}

fn load(shape: &str, format: Format) -> Bench {
    let device = device();
    let model =
        shapes::model(shape, format, device.info().backend != "cpu").unwrap_or_else(|e| panic!("{e}"));
    Bench::load(&model, device, &[PREFILL, DECODE], &|_| ()).unwrap_or_else(|e| panic!("{e}"))
}

/// The sum of `n` calls of `once`.
fn times(n: u64, mut once: impl FnMut() -> Duration) -> Duration {
    (0..n).map(|_| once()).sum()
}

fn kernels(group: &mut BenchmarkGroup<WallTime>, model: &str, bench: &mut Bench) {
    for (test, name) in [(PREFILL, "prefill"), (DECODE, "decode")] {
        let kernels = match bench.profile(&test, 1) {
            Ok(kernels) => kernels,
            Err(e) => return eprintln!("kernel/{model}: {e}"),
        };
        for kernel in kernels {
            group.throughput(Throughput::Bytes((kernel.gb_s * kernel.us * 1e3) as u64));
            let id =
                BenchmarkId::new(format!("{model}/{name}"), format!("{} {}", kernel.kernel, kernel.note));
            let is_it = |k: &&wgpt::bench::Profiled| (k.kernel, &k.note) == (kernel.kernel, &kernel.note);
            group.bench_function(id, |b| {
                b.iter_custom(|n| {
                    let all = bench.profile(&test, n as u32).expect("measured before");
                    let mean = all.iter().find(is_it).expect("measured before").us;
                    Duration::from_secs_f64(mean * 1e-6 * n as f64)
                });
            });
        }
    }
}

fn main() {
    let mut criterion = Criterion::default()
        .sample_size(10)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(2))
        .configure_from_args();
    for (shape, format) in models() {
        let model = format!("{shape}/{}", format.name());
        let mut bench = load(&shape, format);
        kernels(&mut criterion.benchmark_group("kernel"), &model, &mut bench);
        for (name, test) in [("prefill", PREFILL), ("decode", DECODE)] {
            let mut group = criterion.benchmark_group(name);
            group.throughput(Throughput::Elements(test.tokens.into()));
            group.bench_function(&model, |b| {
                b.iter_custom(|n| times(n, || bench.run(&test).unwrap_or_else(|e| panic!("{e}"))));
            });
        }
        let mut group = criterion.benchmark_group("encode");
        group.throughput(Throughput::Elements(bench.dispatches(&DECODE) as u64));
        if !bench.encode(&DECODE).is_zero() {
            group.bench_function(&model, |b| b.iter_custom(|n| times(n, || bench.encode(&DECODE))));
        }
        drop(group);
        drop(bench);
        let mut group = criterion.benchmark_group("load");
        group.bench_function(&model, |b| {
            b.iter_custom(|n| {
                times(n, || {
                    let bench = load(&shape, format);
                    bench.load + bench.compile
                })
            });
        });
    }
    criterion.final_summary();
}
