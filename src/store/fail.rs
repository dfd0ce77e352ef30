//! Points at which a test lets the process die, freeze or wait; nothing in a release build.

/// Kills this process with SIGKILL where `KLIEG_KILL_AT` names the point. Where `KLIEG_STOP_AT` does, freezes it with SIGSTOP, the first
/// time that it comes there; where `KLIEG_WAIT_AT` does, this thread alone waits until the file `KLIEG_WAIT_FOR` is there. With
/// `KLIEG_ONCE`, only the process does so that makes that file.
#[cfg(debug_assertions)]
#[expect(
    clippy::disallowed_methods,
    reason = "a switch for tests, which no release build has"
)]
pub fn point(name: &str) {
    use rustix::process::Signal;
    use rustix::process::getpid;
    use rustix::process::kill_process;
    use std::sync::atomic::AtomicBool;
    use std::sync::atomic::Ordering;
    static WAS_FROZEN: AtomicBool = AtomicBool::new(false);
    let is_named = |variable: &str| std::env::var(variable).is_ok_and(|wanted| wanted == name);
    let is_meant = ["KLIEG_KILL_AT", "KLIEG_STOP_AT", "KLIEG_WAIT_AT"]
        .iter()
        .any(|one| is_named(one));
    if is_meant
        && let Some(file) = std::env::var_os("KLIEG_ONCE")
        && std::fs::File::create_new(file).is_err()
    {
        return;
    }
    if is_named("KLIEG_KILL_AT") {
        _ = kill_process(getpid(), Signal::KILL);
    }
    if is_named("KLIEG_STOP_AT") && !WAS_FROZEN.swap(true, Ordering::Relaxed) {
        _ = kill_process(getpid(), Signal::STOP);
    }
    if is_named("KLIEG_WAIT_AT") {
        let file = std::env::var_os("KLIEG_WAIT_FOR").unwrap_or_default();
        while !std::path::Path::new(&file).is_file() {
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
    }
}

#[cfg(not(debug_assertions))]
/// Nothing, in a release.
pub fn point(_name: &str) {}

/// The point at which a small file is complete and has not its name yet, by the folder of our work area: `before a name in journal`.
pub(super) fn before_name(path: &std::path::Path) {
    let area = path.iter().nth_back(2).unwrap_or_default();
    point(&format!("before a name in {}", area.display()));
}
