//! Decoding of files that grow while no process reads: what is half there waits for the next run.

use std::fs;
use std::io::Write as _;
use std::time::Duration;

use super::files::{Case, gzip};

/// One event for each record; its name is the text of the record.
const TEXT: &str = r#"
[[sinks.crm.mapping]]
call = "track"
[sinks.crm.mapping.fields]
user_id = { value = "u1" }
event = ".message"
"#;

/// One event for each record, of the user and with the name it tells.
const ROWS: &str = r#"
[[sinks.crm.mapping]]
call = "track"
[sinks.crm.mapping.fields]
user_id = ".id"
event = ".event"
"#;

/// Text as the bytes of a charset.
type Encode = fn(&str) -> Vec<u8>;

fn utf16le(text: &str) -> Vec<u8> {
    text.encode_utf16().flat_map(u16::to_le_bytes).collect()
}

fn utf16be(text: &str) -> Vec<u8> {
    text.encode_utf16().flat_map(u16::to_be_bytes).collect()
}

fn latin1(text: &str) -> Vec<u8> {
    text.chars().map(|char| u8::try_from(u32::from(char)).unwrap()).collect()
}

fn append(case: &Case, name: &str, bytes: &[u8]) {
    let mut file = fs::File::options().create(true).append(true).open(case.path(name)).unwrap();
    file.write_all(bytes).unwrap();
}

fn multiline(timeout_ms: u32) -> String {
    format!(
        "decoding.codec = \"text\"\n[sources.in.multiline]\nstart_pattern = '^\\d'\n\
         condition_pattern = '^\\d'\nmode = \"halt_before\"\ntimeout_ms = {timeout_ms}\n"
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn group_at_the_end_of_a_followed_file_is_sent_after_its_time_limit() {
    // The last group of a file that is followed has no line after it; it is a record once it has
    // waited so long, and the groups after it are whole.
    let case = Case::new("app.log", &multiline(300), TEXT).await;
    let running = case.follow();
    case.append("app.log", "1 boom\n at a\n at b\n");
    case.until_names(1).await;
    case.append("app.log", "2 bang\n at c\n3 over\n");
    case.until_names(3).await;
    running.stop();
    case.once();
    assert_eq!(case.names().await, ["1 boom\n at a\n at b", "2 bang\n at c", "3 over"]);
    assert_eq!(case.letters(), "");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn incomplete_group_at_a_stop_is_read_whole_by_the_next_run() {
    // What waits for further lines is neither sent in halves nor passed over by the checkpoint.
    let case = Case::new("app.log", &multiline(3_600_000), TEXT).await;
    case.append("app.log", "1 boom\n at a\n2 bang\n at b\n");
    let running = case.follow();
    case.until_names(1).await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    running.stop();
    assert_eq!(case.names().await, ["1 boom\n at a"]);
    case.append("app.log", " at c\n3 over\n");
    case.once();
    case.once();
    assert_eq!(case.names().await, ["1 boom\n at a", "2 bang\n at b\n at c", "3 over"]);
    assert_eq!(case.letters(), "");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn file_in_another_charset_is_read_in_several_runs() {
    // UTF-16 in both orders, with a mark or without, and Latin-1: letters arrive as they are, a
    // half-written line waits, and a later run continues in the same encoding.
    let encodings: [(&str, &str, Encode); 5] = [
        ("utf-16le", "", utf16le),
        ("utf-16le", "\u{feff}", utf16le),
        ("utf-16", "\u{feff}", utf16le),
        ("utf-16", "\u{feff}", utf16be),
        ("latin1", "", latin1),
    ];
    for (charset, mark, encode) in encodings {
        for codec in ["json", "csv"] {
            let source = format!("decoding.codec = \"{codec}\"\ndecoding.charset = \"{charset}\"");
            let case = Case::new("app.log", &source, ROWS).await;
            let line = |name: &str| match codec {
                "csv" => format!("u1,{name}\r\n"),
                _ => format!("{{\"id\":\"u1\",\"event\":\"{name}\"}}\r\n"),
            };
            let header = if codec == "csv" { "id,event\r\n" } else { "" };
            append(&case, "app.log", &encode(&format!("{mark}{header}{}", line("façade"))));
            case.once();
            let (whole, half) = (encode(&line("Ü")), encode(&line("ñandú")));
            append(&case, "app.log", &[&whole[..], &half[..(half.len() / 2) | 1]].concat());
            case.once();
            append(&case, "app.log", &half[(half.len() / 2) | 1..]);
            case.once();
            let what = format!("{charset} {mark:?} {codec}: {}", case.letters());
            assert_eq!(case.names().await, ["façade", "Ü", "ñandú"], "{what}");
            assert_eq!(case.letters(), "", "{what}");
            case.account.close().await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn compressed_file_in_another_charset_is_read() {
    // The charset is that of the text in the packed file.
    for (charset, packed) in [
        ("utf-16", gzip(&utf16le("\u{feff}id,event\nu1,façade\nu1,Ü\n"))),
        ("utf-16", gzip(&utf16be("\u{feff}id,event\nu1,façade\nu1,Ü\n"))),
        ("latin1", gzip(&latin1("id,event\nu1,façade\nu1,Ü\n"))),
    ] {
        let source = format!("decoding.codec = \"csv\"\ndecoding.charset = \"{charset}\"");
        let case = Case::new("app.csv.gz", &source, ROWS).await;
        append(&case, "app.csv.gz", &packed);
        case.once();
        case.once();
        assert_eq!(case.names().await, ["façade", "Ü"], "{charset}: {}", case.letters());
        case.account.close().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn parts_of_a_container_line_are_joined_across_runs() {
    // A message whose last part is not there yet waits, also while lines of the other stream pass,
    // and is one record of the next run.
    let cri = [
        "2026-08-20T08:00:00Z stdout P one \n",
        "2026-08-20T08:00:01Z stderr F between\n",
        "2026-08-20T08:00:02Z stdout F two\n",
    ];
    let docker = [
        "{\"log\":\"one \",\"stream\":\"stdout\",\"time\":\"2026-08-20T08:00:00Z\"}\n",
        "{\"log\":\"between\\n\",\"stream\":\"stderr\",\"time\":\"2026-08-20T08:00:01Z\"}\n",
        "{\"log\":\"two\\n\",\"stream\":\"stdout\",\"time\":\"2026-08-20T08:00:02Z\"}\n",
    ];
    for (codec, [one, between, two]) in [("cri", cri), ("docker", docker)] {
        let case = Case::new("app.log", &format!("decoding.codec = \"{codec}\""), TEXT).await;
        case.append("app.log", &format!("{one}{between}"));
        let running = case.follow();
        case.until_names(1).await;
        tokio::time::sleep(Duration::from_millis(300)).await;
        running.stop();
        assert_eq!(case.names().await, ["between"], "{codec}");
        case.append("app.log", two);
        case.once();
        case.once();
        assert_eq!(case.names().await, ["between", "one two"], "{codec}: {}", case.letters());
        assert_eq!(case.letters(), "", "{codec}");
        case.account.close().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn columns_named_over_several_lines_are_known_to_the_next_run() {
    // The row that names the columns may hold a newline in quotes, be after empty lines, and be
    // longer than a block; a run that continues after it knows them, in UTF-16 too.
    let wide = format!("id,event,\"{}\"", "a note\nof two lines ".repeat(3000));
    for header in ["id,event,\"the\nnote\"", "\n\nid,event,\"a \"\"b\"\"\n\n,c\"", &wide] {
        for (charset, encode) in [
            ("utf-8", (|text| text.as_bytes().to_vec()) as fn(&str) -> Vec<u8>),
            ("utf-16le", utf16le),
        ] {
            let source = format!("decoding.codec = \"csv\"\ndecoding.charset = \"{charset}\"");
            let case = Case::new("rows.csv", &source, ROWS).await;
            append(&case, "rows.csv", &encode(&format!("{header}\nu1,e1,x\n")));
            case.once();
            append(&case, "rows.csv", &encode("u1,e2,\"half\n"));
            case.once();
            append(&case, "rows.csv", &encode("way\"\nu1,e3,z\n"));
            case.once();
            let what = format!("{charset} {:?}: {}", &header[..10], case.letters());
            // The row that is not closed was said to be incomplete by the run that met its half.
            assert_eq!(case.names().await, ["e1", "e2", "e3"], "{what}");
            case.account.close().await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn utf16_file_that_is_read_from_its_end_begins_with_a_whole_line() {
    // Reading begins after the last newline, whatever characters with the byte of a newline stand
    // after it; half a line that is there is read once it is whole.
    let encodings: [(&str, Encode); 2] = [("", utf16le), ("\u{feff}", utf16be)];
    for (mark, encode) in encodings {
        let source =
            "decoding.codec = \"text\"\ndecoding.charset = \"utf-16\"\nread_from = \"end\"";
        let case = Case::new("app.log", source, TEXT).await;
        append(&case, "app.log", &encode(&format!("{mark}before\nĊ \u{0a0a} half")));
        case.once();
        append(&case, "app.log", &encode(" whole\nafter\n"));
        case.once();
        let arrived = case.names().await;
        assert_eq!(arrived, ["Ċ \u{0a0a} half whole", "after"], "{}", case.letters());
        assert_eq!(case.letters(), "");
        case.account.close().await;
    }
}
