fn main() -> std::process::ExitCode {
    wgpt::cli::main()
}
