//! Checks that the compilers of DX12, of browsers and of several makers' drivers accept the programs, without
//! any device.
//!
//! A plan with every kernel in every variant and format is always written for each target, and goes through
//! DXC, Microsoft's newer compiler, where that is installed. `tests/run --compilers` sends the programs of
//! all fixtures and of well-known shapes through all compilers. The script ../shared/gpu-lab/lab runs all of
//! them except browsers.

use crate::{
    images,
    support::{Fixture, path, shared},
};
use std::{
    collections::HashSet,
    fs,
    path::Path,
    process::{Command, Output, Stdio},
    sync::{Mutex, PoisonError},
};
use wgpt::{
    backend::{Device, DeviceChoice, GpuOptions},
    capabilities::{Capabilities, Layout, Matrices},
    programs::{Written, of_model, written},
    shader::Compiler,
    shapes, verify,
    weights::Format,
};

/// Whether all programs are to go through all compilers.
pub fn thorough() -> bool {
    let is_asked_for = std::env::var_os("WGPT_TEST_COMPILERS").is_some();
    if !is_asked_for {
        eprintln!("left out: tests/run --compilers does more");
    }
    is_asked_for
}

/// The programs of every kernel in every variant and format.
fn kernels(compiler: Compiler) -> Vec<Written> {
    written(compiler, &Capabilities::webgpu(), |can| Ok(vec![verify::plans(can)])).expect("programs")
}

/// The programs of `kernels`, of all fixtures, with large and with small bindings, and of well-known shapes
/// in every format. Duplicates are removed.
fn everything(compiler: Compiler) -> Vec<Written> {
    let small =
        Capabilities { layout: Layout::gpu(700), max_binding: 41_000, split: 8, ..Capabilities::webgpu() };
    let mut all = kernels(compiler);
    let mut add = |name: &str, programs: Vec<Written>| {
        all.extend(programs.into_iter().map(|p| Written { name: format!("{name}.{}", p.name), ..p }));
    };
    let fixtures = Fixture::all().into_iter().map(|fixture| fixture.model);
    for model in fixtures.chain(images::models()) {
        for (limits, can) in [("webgpu", &Capabilities::webgpu()), ("small", &small)] {
            // Some models do not fit into small bindings.
            if let Ok(programs) = of_model(&model, compiler, can) {
                add(&format!("{}.{limits}", model.name), programs);
            }
        }
    }
    for shape in ["gpt2", "llama-3.2-1b", "llama-3.1-8b"] {
        for format in Format::ALL {
            let model = shapes::model(shape, format, true).expect("a shape");
            let programs = of_model(&model, compiler, &Capabilities::webgpu()).expect("programs");
            add(&format!("{shape}-{}", format.name()), programs);
        }
    }
    let mut known = HashSet::new();
    all.retain(|program| known.insert(program.text.clone()));
    all
}

/// Writes programs into a folder. Returns the names of their files.
fn put(programs: &[Written], folder: &Path) -> Vec<String> {
    for Written { name, text } in programs {
        fs::write(folder.join(name), text).expect("a file");
    }
    programs.iter().map(|program| program.name.clone()).collect()
}

/// One command at a time, because compilers that run under Wine share one Wine.
static LAB: Mutex<()> = Mutex::new(());

/// Runs ../shared/gpu-lab/lab; `set` can change the command. None where the script is missing.
pub fn lab(folder: &Path, args: &[&str], set: impl FnOnce(Command) -> Command) -> Option<Output> {
    let script = shared("gpu-lab/lab");
    // With --compilers, a missing script is a failure, so that the run does not pass without any compiler.
    assert!(script.is_some() || !thorough(), "../shared/gpu-lab/lab, which --compilers needs, is not there");
    let script = script?.canonicalize().expect("a path");
    let _alone = LAB.lock().unwrap_or_else(PoisonError::into_inner);
    let mut command = Command::new(script);
    // Arguments and file names may contain any Unicode characters.
    command.args(args).current_dir(folder).env("LC_ALL", "C.UTF-8").stdin(Stdio::null());
    Some(set(command).output().expect("it starts"))
}

pub fn words(output: &Output) -> String {
    [&output.stdout, &output.stderr].map(|text| String::from_utf8_lossy(text)).concat()
}

/// Asserts that a compiler accepts all programs.
fn accepted(compiler: &str, programs: &[Written]) {
    let folder = tempfile::tempdir().expect("a folder");
    let files = put(programs, folder.path());
    println!("{compiler}, {} programs", files.len());
    // In batches, because the length of a command line is limited.
    for files in files.chunks(500) {
        let args: Vec<_> = [compiler].into_iter().chain(files.iter().map(String::as_str)).collect();
        let Some(output) = lab(folder.path(), &args, |command| command) else { return };
        let text = words(&output);
        println!("{text}");
        let has_judged = text.contains(" accepted, ");
        if !has_judged && !thorough() {
            eprintln!("left out: {compiler} is not to be had here");
            return;
        }
        assert!(output.status.success(), "{compiler} refuses some: {text}");
        let accepted = format!("{} accepted, 0 refused", files.len());
        assert!(text.contains(&accepted), "{compiler} has seen all: {text}");
    }
}

#[test]
fn every_kernel_is_written_for_every_compiler() {
    let counts = Compiler::ALL.map(|compiler| kernels(compiler).len());
    assert!(counts[0] > 200 && counts.iter().all(|count| *count == counts[0]), "{counts:?}");
}

#[test]
fn dxc_accepts_every_program() {
    let programs = if thorough() { everything(Compiler::Dx12) } else { kernels(Compiler::Dx12) };
    accepted("dxc", &programs);
}

#[test]
fn fxc_accepts_every_program() {
    if !thorough() {
        return;
    }
    let mut programs = everything(Compiler::Dx12);
    programs.retain(|program| program.name.ends_with(".plain.hlsl"));
    accepted("fxc", &programs);
}

#[test]
fn browsers_accept_every_program() {
    if !thorough() {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let count = put(&everything(Compiler::Web), folder.path()).len();
    let script = path("fixtures/browser.cjs");
    let node = Command::new("node").arg(script).arg(folder.path()).output();
    let output = match node {
        Ok(output) => output,
        Err(e) => panic!("--compilers needs node, npm and Chromium: {e}"),
    };
    let text = words(&output);
    println!("a browser, {count} programs: {text}");
    assert!(output.status.success(), "there is none, or it refuses some: {text}");
    assert!(text.contains(&format!("{count} programs seen")), "{text}");
}

/// Set in a child process that makes every pipeline on the one device of a simulated driver.
const PIPELINES: &str = "WGPT_TEST_PIPELINES";

/// The cooperative matrices of the chips that have them, in tiles of either size.
const MATRICES: Matrices = Matrices { size: 16, max_subgroup: 64, large_from: 200 };

/// Makes a pipeline of every kernel in every variant and format on the first device.
fn make_pipelines(subgroups: bool, matrices: Option<Matrices>) {
    if std::env::var_os(PIPELINES).is_none() {
        return;
    }
    // A simulated driver allows its device to be enumerated and opened only once.
    let choice = DeviceChoice::from("vulkan");
    let mut device = Device::open(&choice, true, None, GpuOptions::default()).expect("a device");
    assert!(device.capabilities().subgroups, "{} has subgroups", device.info().name);
    device.restrict(|can| (can.subgroups, can.matrices) = (subgroups, matrices));
    let plans = verify::plans(&device.capabilities());
    let count = plans.programs(&device.capabilities()).len();
    let name = device.info().name;
    device.prepare(plans, &|_| ()).expect("pipelines");
    println!("made {count} pipelines on {name}");
}
#[test]
fn pipelines_with_subgroups() {
    make_pipelines(true, None);
}
#[test]
fn pipelines_without_subgroups() {
    make_pipelines(false, None);
}
#[test]
fn pipelines_on_matrices() {
    make_pipelines(true, Some(MATRICES));
}

#[test]
fn drivers_of_four_makers_make_every_pipeline() {
    if !thorough() {
        return;
    }
    let own = std::env::current_exe().expect("a path");
    let chips = [
        ["amd", "navi31"],
        ["amd", "navi21"],
        ["amd", "vega10"],
        ["amd", "polaris10"],
        ["intel", "dg2"],
        ["intel", "bmg"],
        ["intel", "tgl"],
        ["intel", "skl"],
        ["nvidia", "ampere"],
        ["nvidia", "turing"],
        ["nvidia", "pascal"],
        ["apple", ""],
    ];
    for chip in chips {
        let what = chip.join(" ");
        let mut variants =
            vec![(true, None, "pipelines_with_subgroups"), (false, None, "pipelines_without_subgroups")];
        if ["navi31", "ampere", "turing"].contains(&chip[1]) {
            variants.push((true, Some(MATRICES), "pipelines_on_matrices"));
        }
        for (subgroups, matrices, test) in variants {
            let can = Capabilities { subgroups, matrices, ..Capabilities::webgpu() };
            let count = verify::plans(&can).programs(&can).len();
            let (set, test) = (format!("{PIPELINES}=1"), format!("compilers::{test}"));
            let (set, test) = (set.as_str(), test.as_str());
            let command = ["env", set, own.to_str().expect("UTF-8"), test, "--exact"];
            let args: Vec<&str> = chip.into_iter().filter(|word| !word.is_empty()).chain(command).collect();
            let here = Path::new(env!("CARGO_MANIFEST_DIR"));
            let Some(output) = lab(here, &args, |command| command) else { return };
            let text = words(&output);
            // Each pipeline prints a line that begins with its number.
            let is_pipeline =
                |line: &&str| line.split_whitespace().next().is_some_and(|w| w.parse::<u32>().is_ok());
            let made = text.lines().filter(is_pipeline).count();
            println!("{what}, {test}: {made} pipelines");
            assert!(made >= count, "{what} makes {made} pipelines of {count} programs: {text}");
        }
    }
}
