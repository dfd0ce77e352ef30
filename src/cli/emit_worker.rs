//! The units by which service managers run workers.

use std::path::Path;
use std::path::PathBuf;

use serde_json::json;

use crate::cli::emit::Forms;
use crate::cli::emit::fill;
use crate::cli::emit::quoted;
use crate::cli::exit;
use crate::engine::cluster::check_pool;

/// A worker and how much of a machine it gets.
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Examples:
  klieg emit systemd --pool nightly --slots 4 --memory 6GiB --out /etc/systemd/system
  klieg emit yarn --pool nightly --workers 20 --slots 2 --memory 3GiB --klieg hdfs:///apps/klieg/klieg
  klieg emit kubernetes --pool nightly --workers 20 --image registry.example/klieg:0.1.0

The site file is read on the machine of the worker. Workers and drivers must be the same build.")]
pub(super) struct WorkerForm {
    /// The pool
    #[arg(long, value_name = "NAME")]
    pool: String,
    /// Tasks at a time of each worker
    #[arg(long, value_name = "N", default_value = "2")]
    slots: u32,
    /// Memory of the plans of each worker
    #[arg(long, value_name = "SIZE", default_value = "2GiB")]
    memory: String,
    /// Workers of a service (yarn, kubernetes)
    #[arg(long, value_name = "N", default_value = "2")]
    workers: u32,
    /// Site file on the machines of the workers
    #[arg(long, value_name = "FILE", default_value = "/etc/klieg/site.yaml")]
    config: String,
    /// Folder for shuffles and spilled data
    #[arg(long, value_name = "DIR", default_value = "/var/lib/klieg/work")]
    work_dir: String,
    /// Folder of a warehouse on a shared file system, which the unit lets it write (systemd)
    #[arg(long, value_name = "DIR")]
    warehouse: Option<String>,
    /// Kerberos principal of the service, name/_HOST@REALM (yarn)
    #[arg(long, value_name = "PRINCIPAL", requires = "keytab")]
    principal: Option<String>,
    /// URI of its keytab, such as file:///etc/security/keytabs/klieg.keytab (yarn)
    #[arg(long, value_name = "URI", requires = "principal")]
    keytab: Option<String>,
    /// Path of the binary; for yarn where it lies on HDFS
    #[arg(long, value_name = "PATH")]
    klieg: Option<String>,
    /// User that runs it (systemd, yarn)
    #[arg(long, value_name = "USER", default_value = "spot")]
    user: String,
    /// Queue (yarn)
    #[arg(long, value_name = "QUEUE", default_value = "default")]
    queue: String,
    /// Image that has the binary as /usr/bin/klieg (kubernetes)
    #[arg(long, value_name = "IMAGE", default_value = "klieg:latest")]
    image: String,
    /// Folder for the form; a file that exists is not overwritten
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

impl WorkerForm {
    pub(super) fn out(&self) -> Option<&Path> {
        self.out.as_deref()
    }

    /// Names go into names of units, of services and into files.
    fn check(&self) -> anyhow::Result<()> {
        check_pool(&self.pool)?;
        let is_name = |text: &str| {
            let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
            !text.is_empty() && text.bytes().all(is_plain)
        };
        let is_path = |text: &str| {
            let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_./:@".contains(&byte);
            !text.is_empty() && text.bytes().all(is_plain)
        };
        let names = [
            ("--user", &self.user),
            ("--queue", &self.queue),
            ("--memory", &self.memory),
        ];
        let paths = [
            ("--config", &self.config),
            ("--work-dir", &self.work_dir),
            ("--image", &self.image),
        ];
        let more = [
            ("--klieg", &self.klieg),
            ("--warehouse", &self.warehouse),
            ("--principal", &self.principal),
            ("--keytab", &self.keytab),
        ];
        let more = more.into_iter();
        let more = more.filter_map(|(option, path)| Some((option, path.as_ref()?)));
        let mut bad = names.into_iter().filter(|(_, text)| !is_name(text));
        let mut bad_paths = paths
            .into_iter()
            .chain(more)
            .filter(|(_, text)| !is_path(text));
        match bad.next().or_else(|| bad_paths.next()) {
            None => Ok(()),
            Some((option, text)) => {
                let text = format!(
                    "{option} is `{text}`, must be letters, digits, - _ . and, for paths, / : @"
                );
                Err(exit::UsageText(text).into())
            }
        }
    }

    /// What the unit may use, so that nothing of the system ends a worker that keeps to its --memory.
    fn memory_mib(&self) -> anyhow::Result<u64> {
        let units = [("GiB", 1024), ("MiB", 1)];
        let split = |(unit, mib): (&str, u64)| {
            Some(self.memory.strip_suffix(unit)?.parse::<u64>().ok()? * mib)
        };
        match units.into_iter().find_map(split) {
            Some(mib) => Ok(mib + 256 + 192 * u64::from(self.slots)),
            None => Err(exit::UsageText(format!(
                "--memory is `{}`, must be such as 2GiB",
                self.memory
            ))
            .into()),
        }
    }

    fn command(&self, klieg: &str, config: &str, work_dir: &str, more: &[&str]) -> String {
        let slots = self.slots.to_string();
        let words = [
            klieg,
            "worker",
            "--pool",
            &self.pool,
            "--config",
            config,
            "--slots",
            &slots,
            "--memory",
            &self.memory,
            "--work-dir",
            work_dir,
        ];
        let words: Vec<_> = words
            .iter()
            .map(|word| quoted(word))
            .chain(more.iter().map(|word| (*word).to_owned()))
            .collect();
        words.join(" ")
    }

    /// The work directory, where it is one that systemd makes for the user.
    fn state_directory(&self) -> Option<&str> {
        let below = self.work_dir.strip_prefix("/var/lib/")?;
        (!below.contains("..")).then_some(below)
    }

    /// Other folders that are written.
    fn writable(&self) -> String {
        let own = self.state_directory().is_none().then_some(&self.work_dir);
        let folders = own.into_iter().chain(&self.warehouse);
        let folders: Vec<_> = folders.map(|folder| format!("-{folder}")).collect();
        folders.join(" ")
    }

    pub(super) fn systemd(&self) -> anyhow::Result<Forms> {
        self.check()?;
        let folders = [Some(&self.work_dir), self.warehouse.as_ref()];
        let mut folders = folders.into_iter().flatten();
        if let Some(folder) = folders.find(|folder| !folder.starts_with('/')) {
            let text = format!("`{folder}` must be a folder that begins with /");
            return Err(exit::UsageText(text).into());
        }
        let klieg = self.klieg.as_deref().unwrap_or("/usr/local/bin/klieg");
        let more = ["--bind", "0.0.0.0", "--external-host", "%H"];
        let values = vec![
            ("@POOL@", self.pool.clone()),
            ("@USER@", self.user.clone()),
            (
                "@COMMAND@",
                self.command(klieg, &self.config, &self.work_dir, &more),
            ),
            (
                "@STATE_DIRECTORY@",
                self.state_directory().unwrap_or_default().to_owned(),
            ),
            ("@WRITABLE@", self.writable()),
            ("@MEMORY@", self.memory_mib()?.to_string()),
        ];
        let name = format!("klieg-worker-{}.service", self.pool);
        Ok(vec![(
            name,
            fill(include_str!("emit/worker.service"), &values),
        )])
    }

    pub(super) fn yarn(&self) -> anyhow::Result<Forms> {
        self.check()?;
        let klieg = self.klieg.as_deref().unwrap_or("hdfs:///apps/klieg/klieg");
        let more = ["--bind", "0.0.0.0", "--external-host", "$(hostname -f)"];
        let command = self.command("./klieg", "site.yaml", "$PWD/work", &[]);
        // The container's folder is known to its shell alone.
        let command = command.replace("'$PWD/work'", "\"$PWD/work\"");
        let command = format!("chmod +x klieg && exec {command} {}", more.join(" "));
        let name: String = self.pool.to_lowercase().replace(['_', '.'], "-");
        let folder = klieg
            .rsplit_once('/')
            .map_or("hdfs:///apps/klieg", |(folder, _)| folder);
        let file = |source: String, name: &str| json!({ "type": "STATIC", "src_file": source, "dest_file": name });
        let mut form = json!({
            "name": format!("klieg-{name}"),
            "version": env!("CARGO_PKG_VERSION"),
            "description": "klieg workers: they look for drivers of the pool, see INSTALL.md",
            "queue": self.queue,
            "components": [{
                "name": "worker",
                "number_of_containers": self.workers,
                "launch_command": command,
                "restart_policy": "ALWAYS",
                "resource": { "cpus": self.slots, "memory": self.memory_mib()?.to_string() },
                "configuration": {
                    "env": { "HADOOP_USER_NAME": self.user },
                    "files": [
                        file(klieg.to_owned(), "klieg"),
                        file(format!("{folder}/site.yaml"), "site.yaml"),
                    ],
                },
            }],
            "configuration": { "properties": { "yarn.service.container-failure.retry.max": "-1" } },
        });
        if let (Some(principal), Some(keytab)) = (&self.principal, &self.keytab) {
            form["kerberos_principal"] = json!({ "principal_name": principal, "keytab": keytab });
        }
        let text = format!("{}\n", serde_json::to_string_pretty(&form)?);
        Ok(vec![(format!("klieg-{name}.Yarnfile"), text)])
    }

    pub(super) fn kubernetes(&self) -> anyhow::Result<Forms> {
        self.check()?;
        let slots = self.slots.to_string();
        let arguments = [
            "worker",
            "--pool",
            &self.pool,
            "--config",
            &self.config,
            "--slots",
            &slots,
            "--memory",
            &self.memory,
            "--work-dir",
            "/work",
            "--bind",
            "0.0.0.0",
            "--external-host",
            "$(POD_IP)",
            "--status",
            "0.0.0.0:9810",
        ];
        let arguments: Vec<_> = arguments
            .iter()
            .map(|word| json!(word).to_string())
            .collect();
        let values = vec![
            ("@NAME@", self.pool.to_lowercase().replace(['_', '.'], "-")),
            ("@WORKERS@", self.workers.to_string()),
            ("@IMAGE@", self.image.clone()),
            ("@ARGUMENTS@", arguments.join(", ")),
            ("@SLOTS@", slots.clone()),
            ("@MEMORY@", self.memory_mib()?.to_string()),
            (
                "@CONFIG_DIR@",
                Path::new(&self.config)
                    .parent()
                    .unwrap_or(Path::new("/etc/klieg"))
                    .display()
                    .to_string(),
            ),
        ];
        Ok(vec![(
            format!("klieg-{}.yaml", self.pool),
            fill(include_str!("emit/worker.yaml"), &values),
        )])
    }
}
