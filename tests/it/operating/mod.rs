//! Operating the built program as a new user would: the rows of the field report's part F3.
//!
//! | row | what must hold | test |
//! |---|---|---|
//! | 1, 2 | progress, status, a line a minute | the module `page` |
//! | 1 | the requests of a run and their time at the quota are predicted | `dry_run::*` |
//! | 3 | dead letters and unmatched records are logged, with rule, field, place and the nearest rule | `log::f3_03_dead_letters_are_logged_once_with_rule_field_and_place`, `log::f3_03_unmatched_records_are_logged_with_the_nearest_rule` |
//! | 3 | `--fail-on-unmatched` | `log::f3_03_fail_on_unmatched_ends_with_65` |
//! | 3 | a pattern without a file; `test` without tests | `config::f3_03_pattern_without_a_file_is_a_warning_with_its_place`, `mapping_tests::f3_03_test_without_tests_ends_with_1` |
//! | 4 | every created attribute is named; an outage, and a refused key, is one line at its begin and one at its end | `log::f3_04_*`, `outage::f3_04_*` |
//! | 5 | replay and purge by the running process | `running::f3_05_*` |
//! | 5 | `purge` needs a selection, unknown reasons are errors, `list --summary` | `dead_letters::*` |
//! | 6 | no key is needed where no network is used | `config::f3_06_*`, `running::f3_06_*` |
//! | 7 | `/ready` through an outage | the module `page` |
//! | 8 | SIGTERM and SIGHUP with a backlog | `stopping::*` |
//! | 9 | paths start next to the pipeline file | `sources::f3_09_state_is_beside_the_pipeline_file` |
//! | 9 | positions of plain, compressed and rotated files are shown and changed | `sources::sources_*` |
//! | 10 | syslog, CRI, Docker, forms, query strings | `field::decode`, `field::http` |
//! | 11 | an editor underlines the value at fault | `schema::*` |
//! | 12 | `[[tests]]`: `line`, `--filter`, JUnit, rules no test fires | `mapping_tests::*` |
//! | 13 | `/metrics` has each family once, for Prometheus and for OpenMetrics | `metrics::*` |
//! | 14 | `/v1/records` next to a write key | `field::http`, `http::abuse` |
//! | 16 | attributes are created with a type | `field::profile` |
//! | 17 | texts, colours, headers, help | `config::f3_17_*`, `help::*`, `dead_letters::f3_17_list_has_a_header_and_colours` |
//! | 19 | every fault of every rule; a bare rate limit | `config::f3_19_*` |

mod config;
mod dead_letters;
mod dry_run;
mod help;
mod log;
mod mapping_tests;
mod metrics;
mod outage;
mod running;
mod schema;
mod service;
mod sources;
mod stopping;

use std::path::{Path, PathBuf};

use crate::support::{EmulatorAccount, TestDir};

/// A pipeline with relative paths from `records.ndjson`; `sink` is the rest of the sink's table.
fn pipeline(place: &TestDir, account: &EmulatorAccount, sink: &str) -> PathBuf {
    place.pipeline(&account.endpoint(), sink)
}

/// Runs the program and returns its exit code, stdout and stderr.
fn run(args: &[&str], config: &Path) -> (Option<i32>, String, String) {
    let output = crate::support::binary().args(args).arg("-c").arg(config).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}
