//! The program `wgpt`. Its code is in the library, in the module `cli`.

/// Ends the program with a sentence where memory is short.
#[global_allocator]
static ALLOCATOR: wgpt::cli::SystemOrExit = wgpt::cli::SystemOrExit;

fn main() -> std::process::ExitCode {
    wgpt::cli::main()
}
