//! Worker processes that this process starts. What they must know goes through a pipe, never on a command line; the end of the pipe
//! tells them that this process is gone.

use std::io::Write as _;
use std::process::Child;
use std::process::ChildStdin;
use std::process::Command;
use std::process::ExitStatus;
use std::process::Stdio;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::time::Duration;
use std::time::Instant;

use crate::config::Config;
use crate::engine::cluster::ClusterError;
use crate::engine::cluster::folder::OwnFolder;
use crate::engine::cluster::pool::Rendezvous;
use crate::engine::cluster::worker::Order;

/// A worker process of one driver run.
pub(super) struct ChildProcess {
    child: Child,
    pipe: Option<ChildStdin>,
}

impl ChildProcess {
    /// Starts this program again, also where its file was replaced meanwhile.
    pub(super) fn start(order: &Order) -> Result<Self, ClusterError> {
        let fail = |error: std::io::Error| ClusterError::Worker(format!("cannot start: {error}"));
        let mut command = Command::new("/proc/self/exe");
        command
            .args(["worker", "--child"])
            .stdin(Stdio::piped())
            .stdout(Stdio::null());
        let given_back = given_back(order.memory_bytes / order.slots as u64);
        let heap = [
            (HEAPS, order.slots.to_string()),
            (MAPPED_FROM, given_back.to_string()),
            (TRIMMED_FROM, given_back.to_string()),
        ];
        for (name, value) in heap {
            if std::env::var_os(name).is_none() {
                command.env(name, value);
            }
        }
        let mut child = command.spawn().map_err(fail)?;
        let mut pipe = child.stdin.take();
        if let Some(pipe) = &mut pipe {
            let text = serde_json::to_vec(order).map_err(ClusterError::tls)?;
            pipe.write_all(&text)
                .and_then(|()| pipe.write_all(b"\n"))
                .map_err(fail)?;
        }
        Ok(Self { child, pipe })
    }

    pub(super) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Returns how it ended, where it has.
    pub(super) fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    /// Lets it leave, and kills it where it has not within `grace`.
    pub(super) fn leave(&mut self, grace: Duration) {
        drop(self.pipe.take());
        let start = Instant::now();
        while self.ended().is_none() && start.elapsed() < grace {
            std::thread::sleep(Duration::from_millis(20));
        }
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// Tells the C library to keep one heap a slot: tasks run on many threads in turn, and a heap for each would stay as large as its
/// largest task.
const HEAPS: &str = "MALLOC_ARENA_MAX";
/// And to give memory back: else it takes larger and larger pieces for ones to keep, and a worker stays as large as its largest task.
const MAPPED_FROM: &str = "MALLOC_MMAP_THRESHOLD_";
const TRIMMED_FROM: &str = "MALLOC_TRIM_THRESHOLD_";

/// From how many bytes on a worker gives memory back, by the memory of a slot. What it gives back and takes again is cleared by the
/// system, which takes up to a third of the time of training: so it keeps pieces as large as the C library allows, where it has room.
fn given_back(slot_bytes: u64) -> u32 {
    match slot_bytes {
        0x4000_0000.. => 32 << 20,
        _ => 256 << 10,
    }
}

/// How long workers of this machine are waited for at the end.
const LEAVE: Duration = Duration::from_secs(5);

/// A worker that ends before its time is started again, so often for each of them.
const STARTS: usize = 20;

/// Tasks at a time of each worker of this machine: they share the threads of the run.
pub(super) fn slots_of_each(workers: usize, config: &Config) -> usize {
    (config.threads.get() / workers).max(1)
}

/// Workers of `--cluster local:N`.
pub(super) struct Children {
    orders: Vec<Order>,
    processes: Mutex<Processes>,
    /// Of all of them; it goes when they have left.
    _folder: OwnFolder,
}

#[derive(Default)]
struct Processes {
    all: Vec<ChildProcess>,
    starts: usize,
    /// Processes that ended before their time.
    ended: Vec<u32>,
}

impl Children {
    /// Starts `number` of them; they share the threads and the memory of the run.
    pub(super) fn start(
        number: usize,
        config: &Config,
        rendezvous: &Rendezvous,
    ) -> Result<Self, ClusterError> {
        let size = (
            slots_of_each(number, config),
            config.memory_bytes / number as u64,
        );
        let folder = OwnFolder::take(&config.work_dir).map_err(ClusterError::WorkDir)?;
        let order = |index: usize| {
            let folder = folder.path().join(index.to_string());
            let mut order = Order::new(config, rendezvous.clone(), size, &folder);
            order.is_keyed = true;
            order
        };
        let children = Self {
            orders: (0..number).map(order).collect(),
            processes: Mutex::default(),
            _folder: folder,
        };
        for order in &children.orders {
            let child = ChildProcess::start(order)?;
            children.lock().all.push(child);
        }
        Ok(children)
    }

    fn lock(&self) -> MutexGuard<'_, Processes> {
        self.processes
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts those again that have ended; says so where that has been of no use.
    pub(super) fn tend(&self) -> Option<String> {
        let mut processes = self.lock();
        let Processes { all, starts, ended } = &mut *processes;
        for (child, order) in all.iter_mut().zip(&self.orders) {
            let Some(status) = child.ended() else {
                continue;
            };
            if *starts >= STARTS * self.orders.len() {
                return Some(format!(
                    "a worker of this machine ended with {status}, again and again; its own lines say why"
                ));
            }
            *starts += 1;
            ended.push(child.id());
            match ChildProcess::start(order) {
                Ok(again) => *child = again,
                Err(error) => return Some(error.to_string()),
            }
        }
        None
    }

    /// Takes the processes that ended before their time.
    pub(super) fn take_ended(&self) -> Vec<u32> {
        std::mem::take(&mut self.lock().ended)
    }
}

impl Drop for Children {
    fn drop(&mut self) {
        let mut processes = self.lock();
        for child in &mut processes.all {
            drop(child.pipe.take());
        }
        for child in &mut processes.all {
            child.leave(LEAVE);
        }
    }
}
