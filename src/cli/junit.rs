//! Test results as JUnit XML, which build servers read.

use std::io;
use std::time::Duration;

use quick_xml::Writer;
use quick_xml::events::{BytesDecl, BytesText, Event};

/// One test.
pub(super) struct JunitCase<'a> {
    pub(super) name: &'a str,
    /// The class that build servers group tests by.
    pub(super) group: &'a str,
    pub(super) took: Duration,
    /// Why it failed.
    pub(super) failure: Option<String>,
}

/// The XML text.
pub(super) fn junit(cases: &[JunitCase<'_>]) -> io::Result<Vec<u8>> {
    let failures = cases.iter().filter(|case| case.failure.is_some()).count();
    let took: Duration = cases.iter().map(|case| case.took).sum();
    let (tests, failures) = (cases.len().to_string(), failures.to_string());
    let totals = [
        ("name", "usercom-sink"),
        ("tests", &tests),
        ("failures", &failures),
        ("time", &seconds(took)),
    ];
    let mut writer = Writer::new_with_indent(Vec::new(), b' ', 2);
    writer.write_event(Event::Decl(BytesDecl::new("1.0", Some("UTF-8"), None)))?;
    writer.create_element("testsuites").with_attributes(totals).write_inner_content(|writer| {
        writer.create_element("testsuite").with_attributes(totals).write_inner_content(
            |writer| cases.iter().try_for_each(|case| write_case(writer, case)),
        )?;
        Ok(())
    })?;
    let mut text = writer.into_inner();
    text.push(b'\n');
    Ok(text)
}

fn write_case(writer: &mut Writer<Vec<u8>>, case: &JunitCase<'_>) -> io::Result<()> {
    let (name, group) = (allowed(case.name), allowed(case.group));
    let attributes =
        [("name", name.as_str()), ("classname", &group), ("time", &seconds(case.took))];
    let element = writer.create_element("testcase").with_attributes(attributes);
    let Some(failure) = &case.failure else {
        element.write_empty()?;
        return Ok(());
    };
    element.write_inner_content(|writer| {
        writer
            .create_element("failure")
            .with_attribute(("message", "the outcome differs"))
            .write_text_content(BytesText::new(&allowed(failure)))?;
        Ok(())
    })?;
    Ok(())
}

fn seconds(time: Duration) -> String {
    format!("{:.3}", time.as_secs_f64())
}

/// The text without characters that XML cannot hold in any form.
fn allowed(text: &str) -> String {
    text.chars()
        .map(|c| match c {
            '\t' | '\n' | '\r' => c,
            '\u{0}'..='\u{1f}' | '\u{fffe}' | '\u{ffff}' => char::REPLACEMENT_CHARACTER,
            c => c,
        })
        .collect()
}
