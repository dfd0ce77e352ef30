//! Points at which a test lets the process die or freeze; nothing in a release build.

/// Kills this process with SIGKILL where `KLIEG_KILL_AT` names the point, freezes it with SIGSTOP where `KLIEG_STOP_AT` does.
#[cfg(debug_assertions)]
#[expect(
    clippy::disallowed_methods,
    reason = "a switch for tests, which no release build has"
)]
pub(super) fn point(name: &str) {
    use rustix::process::Signal;
    use rustix::process::getpid;
    use rustix::process::kill_process;
    for (variable, signal) in [
        ("KLIEG_KILL_AT", Signal::KILL),
        ("KLIEG_STOP_AT", Signal::STOP),
    ] {
        if std::env::var(variable).is_ok_and(|wanted| wanted == name) {
            _ = kill_process(getpid(), signal);
        }
    }
}

#[cfg(not(debug_assertions))]
pub(super) fn point(_name: &str) {}
