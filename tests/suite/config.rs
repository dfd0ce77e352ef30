//! Configuration: every key is explained, every mistake has a place.

use klieg::config;
use klieg::config::Layers;
use klieg::job::Job;

fn layers() -> Layers {
    Layers::try_new(std::iter::empty()).unwrap()
}

fn job_error(text: &str) -> String {
    Job::try_new(layers(), ("job.yaml", text), &[], None)
        .unwrap_err()
        .to_string()
}

#[test]
fn every_key_has_its_reason_above_it() {
    let lines: Vec<_> = config::DEFAULTS.lines().collect();
    for (index, line) in lines.iter().enumerate() {
        let is_key = line.contains(':') && !line.trim_start().starts_with('#');
        if is_key {
            let above = lines[index - 1].trim_start();
            assert!(above.starts_with('#'), "line {}: {line}", index + 1);
        }
    }
    assert!(layers().check().is_ok());
}

#[test]
fn the_reference_in_install_is_that_of_the_defaults() {
    let install =
        std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/INSTALL.md")).unwrap();
    let block = format!("```yaml\n{}```", config::DEFAULTS);
    assert!(
        install.contains(&block),
        "copy conf/default.yaml into the configuration reference of INSTALL.md"
    );
}

#[test]
fn unknown_keys_have_line_column_and_the_nearest_key() {
    let head = "name: x\npipeline: flow\nsteps: [ingest]\n";
    let error = job_error(&format!("{head}suspicious:\n  topic: 30\n"));
    assert_eq!(
        error,
        "job.yaml:5:3: unknown key `suspicious.topic`, did you mean `suspicious.topics`?"
    );
    let error = job_error(&format!("{head}ingst:\n  slack: 1h\n"));
    assert!(
        error.starts_with("job.yaml:4:1: unknown key `ingst`"),
        "{error}"
    );
    let error = job_error("nam: x\npipeline: flow\nsteps: [ingest]\n");
    assert!(
        error.contains("job.yaml:1:1: unknown key `nam`, did you mean `name`?"),
        "{error}"
    );
}

#[test]
fn wrong_values_name_place_value_and_what_is_wanted() {
    let head = "name: x\npipeline: flow\nsteps: [ingest]\n";
    let error = job_error(&format!("{head}suspicious:\n  topics: many\n"));
    assert_eq!(
        error,
        "job.yaml:5:3: `suspicious.topics` is `many`, must be 1 to 56"
    );
    let error = job_error(&format!("{head}ingest:\n  slack: 5\n"));
    assert!(
        error.contains("`ingest.slack` is `5`, must be a time"),
        "{error}"
    );
    let error = job_error(&format!("{head}ingest: 5\n"));
    assert_eq!(error, "job.yaml:4:1: `ingest` must be a map of keys");
    let error = job_error("name: x\npipeline: flow\nsteps: [suspicious, ingest]\n");
    assert!(error.contains("step `ingest` cannot stand here"), "{error}");
    let error = job_error("name: x\npipeline: flows\nsteps: [ingest]\n");
    assert!(
        error.contains("job.yaml:2:11: unknown pipeline `flows`"),
        "{error}"
    );
    let error = job_error("name: x\nsteps: [ingest]\n");
    assert_eq!(error, "job.yaml: key `pipeline` is missing");
    assert!(job_error("name: [x\n").starts_with("job.yaml:1:7: "));
    let error = job_error("name: x\npipeline: flow\nsteps:\n\t- ingest\n");
    assert!(error.starts_with("job.yaml:4:2: tabs"), "{error}");
    let error = job_error("name: x\nname: y\npipeline: flow\nsteps: [ingest]\n");
    assert_eq!(
        error,
        "job.yaml:2:1: key `name` stands here for the second time"
    );
    let error = job_error("name: x\npipeline: flow\nsteps: []\n");
    assert!(
        error.starts_with("job.yaml:3:1: `steps` is empty"),
        "{error}"
    );
}

#[test]
fn the_later_layer_wins() {
    let environment = [("KLIEG_SUSPICIOUS__TOPICS".to_owned(), "7".to_owned())];
    let mut layers = Layers::try_new(environment.into_iter()).unwrap();
    assert_eq!(layers.check().unwrap().suspicious.topics, 7);
    layers
        .add_site("site.yaml", "suspicious: { topics: 8 }\nmemory: 64MiB\n")
        .unwrap();
    let config = layers.check().unwrap();
    assert_eq!(
        (config.suspicious.topics, config.memory_bytes),
        (8, 64 << 20)
    );
    let text = "name: x\npipeline: flow\nsteps: [ingest]\nsuspicious: { topics: 9 }\n";
    let job = Job::try_new(layers.clone(), ("job.yaml", text), &[], None).unwrap();
    assert_eq!(job.config.suspicious.topics, 9);
    let flags = [("suspicious.topics".to_owned(), "10".to_owned())];
    let job = Job::try_new(layers, ("job.yaml", text), &flags, None).unwrap();
    assert_eq!(job.config.suspicious.topics, 10);
    let from = |name: &str| Layers::try_new([(name.to_owned(), "1".to_owned())].into_iter());
    assert!(from("KLIEG_SUSPICIOUS__NOPE").is_err());
    assert!(from("KLIEG_SEEDS").is_err());
    assert!(from("KLIEG_SERVICE_HOST").is_ok());
}

#[test]
fn the_shipped_jobs_are_valid() {
    for name in ["flow.yaml", "flow-spot.yaml"] {
        let path = format!("{}/jobs/{name}", env!("CARGO_MANIFEST_DIR"));
        let text = std::fs::read_to_string(&path).unwrap();
        Job::try_new(layers(), (name, &text), &[], None).unwrap();
    }
}
