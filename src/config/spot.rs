//! `/etc/spot.conf` of an Apache Spot installation: lines `KEY='value'` of a shell, of which those are taken that say where things are.
//! It is read as text, never run; what other lines do is left to the shell.

/// Keys of Spot and what they are here.
const KEYS: [(&str, &str); 5] = [
    ("HUSER", "warehouse"),
    ("DBNAME", "catalog.database"),
    ("PRINCIPAL", "hadoop.principal"),
    ("KEYTAB", "hadoop.keytab"),
    ("TOL", "suspicious.threshold"),
];

/// Returns key, value and line of each setting that klieg has too.
pub(super) fn settings(text: &str) -> Vec<(&'static str, String, u64)> {
    let mut settings = Vec::new();
    for (line, number) in text.lines().zip(1..) {
        let Some((name, value)) = line.trim().split_once('=') else {
            continue;
        };
        let name = name.trim_start_matches("export ").trim();
        let value = value.trim().trim_matches(['\'', '"']);
        // Such as ${HUSER}/flow: what a shell would make of it is not known.
        if value.is_empty() || value.contains(['$', '`']) {
            continue;
        }
        if let Some((_, key)) = KEYS.iter().find(|(known, _)| *known == name) {
            let value = match *key {
                "warehouse" if value.starts_with('/') => format!("hdfs://{value}"),
                "catalog.database" => value.to_lowercase(),
                _ => value.to_owned(),
            };
            settings.push((*key, value, number));
        }
    }
    settings
}
