//! What one run keeps to make the next start faster.

use crate::support::adapter_name;
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

/// Runs the program on the GPU with its own cache folder. Returns its stderr.
fn generate(adapter: &str, cache: &Path) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_wgpt"));
    command.args(["-v", "generate", "--greedy", "-n", "3", "--device", adapter, "Once"]);
    let output = command.env("XDG_CACHE_HOME", cache).output().expect("it starts");
    let err = String::from_utf8(output.stderr).expect("UTF-8");
    assert!(output.status.success(), "{err}");
    err
}

/// Compiled programs are found by the next run. A damaged file is ignored and written again, and a folder
/// that cannot be written causes no failure.
#[test]
// elsewhere no variable sets the cache folder, or no driver supports pipeline caches
#[cfg(target_os = "linux")]
fn compiled_programs_are_kept() {
    let Some(adapter) = adapter_name() else { return };
    let folder = tempfile::tempdir().expect("a folder");
    let known = |said: &str| !said.contains(": 0 bytes of compiled programs");
    let said = generate(&adapter, folder.path());
    if !said.contains("of compiled programs") {
        return eprintln!("skipped: this driver does not hand out what it compiled");
    }
    assert!(!known(&said), "{said}");
    let kept: Vec<PathBuf> = fs::read_dir(folder.path().join("wgpt/pipelines"))
        .expect("the cache folder")
        .map(|entry| entry.expect("an entry").path())
        .collect();
    let [file] = &kept[..] else { panic!("one file for one adapter: {kept:?}") };
    let whole = fs::read(file).expect("a file");
    assert!(known(&generate(&adapter, folder.path())));
    fs::write(file, &whole[..whole.len() - 1]).expect("written");
    assert!(!known(&generate(&adapter, folder.path())), "a damaged file");
    assert_eq!(fs::read(file).expect("a file").len(), whole.len());
    let blocked = folder.path().join("blocked");
    fs::write(&blocked, "a file where a folder should be").expect("written");
    assert!(!known(&generate(&adapter, &blocked)));
}
