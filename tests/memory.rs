//! Memory while loading: weights are uploaded through a fixed ring of buffers, and on the CPU they stay
//! memory-mapped.

use crate::support::{Llama, adapter_name};
use std::{
    fs,
    process::{Command, Stdio},
    time::Duration,
};

/// The peak of a run's anonymous memory, in bytes.
fn peak_anonymous_bytes(args: &[&str]) -> u64 {
    let mut child = Command::new(env!("CARGO_BIN_EXE_wgpt"))
        .args(args)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("it starts");
    let status = format!("/proc/{}/status", child.id());
    let mut peak = 0;
    let ended = loop {
        if let Some(ended) = child.try_wait().expect("a child") {
            break ended;
        }
        let text = fs::read_to_string(&status).unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix("RssAnon:"));
        let kib = line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<u64>().ok());
        peak = peak.max(kib.unwrap_or(0) * 1024);
        std::thread::sleep(Duration::from_millis(2));
    };
    assert!(ended.success(), "{args:?}");
    peak
}

/// The embedding is larger than a binding of 128 MiB.
const LARGE: Llama = Llama { layers: 6, hidden: 1024, inner: 4096, vocab: 40_000 };

#[test]
fn loading_takes_the_weights_once() {
    if !cfg!(target_os = "linux") {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let weights = LARGE.write(folder.path());
    let reordered = LARGE.layers * 2 * LARGE.hidden * LARGE.hidden * 4;
    assert!(weights > 500_000_000);
    let model = folder.path().to_str().expect("UTF-8");
    let run = |device: &str, more: &[&str]| {
        let args =
            ["generate", "Once", "--greedy", "-n", "1", "--ctx", "512", "--model", model, "--device", device];
        peak_anonymous_bytes(&[&args, more].concat())
    };
    let quantized = |device: &str| {
        let (peak, weights) = (run(device, &["--quantize", "q8_0"]), weights / 4 * 34 / 32);
        eprintln!("quantising to q8_0 on {device}: {} MB of {} MB", peak / 1_000_000, weights / 1_000_000);
        assert!(peak < 300_000_000 + weights, "{peak} bytes on {device}");
    };
    quantized("cpu");
    let cpu = run("cpu", &[]);
    eprintln!(
        "peak anonymous memory: {} MB of {} MB of weights, on the CPU",
        cpu / 1_000_000,
        weights / 1_000_000
    );
    assert!(cpu < 300_000_000 + reordered, "{cpu} bytes on the CPU");
    // A software device's memory is anonymous memory of the host; a real GPU's is not.
    let Some(gpu) = adapter_name() else { return };
    quantized(&gpu);
    let gpu = run(&gpu, &[]);
    eprintln!("peak anonymous memory: {} MB, on the GPU", gpu / 1_000_000);
    assert!(gpu < 300_000_000 + weights, "{gpu} bytes on the GPU");
}

/// Where memory for buffers is lacking, the program says so and exits with 5.
#[test]
fn too_little_memory_exits_5() {
    if !cfg!(target_os = "linux") {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let mapped = LARGE.write(folder.path()) >> 10;
    let model = folder.path().to_str().expect("UTF-8");
    let on = |device: &str, ctx: &str, kib: u64| {
        let limited = format!(
            "ulimit -v {kib}; exec \"$0\" generate Once -n 1 --model \"$1\" --device \"$2\" --ctx $3"
        );
        let output = Command::new("sh")
            .args(["-c", &limited, env!("CARGO_BIN_EXE_wgpt"), model, device, ctx])
            .stdin(Stdio::null())
            .output()
            .expect("a shell");
        let err = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(5), "{kib} KiB on {device}: {err}");
        assert!(err.contains("memory") && err.contains("--ctx") && !err.contains("panicked"), "{err}");
    };
    // Not enough for a cache of five gigabytes; or enough for the weights only once, where a software device
    // needs a second copy.
    on("cpu", "100000", mapped + 2_000_000);
    if let Some(gpu) = adapter_name() {
        on(&gpu, "512", mapped + 1_100_000);
    }
}
