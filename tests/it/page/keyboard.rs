//! The page with the keyboard alone.

use usercom_sink::emulator::Faults;

use super::browser::{Browser, ENTER, ESCAPE, SPACE, TAB};
use super::service::{STRICT, Service, TOKEN, parsed};
use crate::support::{EmulatorAccount, TestDir};

/// Presses Tab until an element has the focus. Each stop on the way must be visible, on the screen,
/// and marked as focused.
async fn tab_to(browser: &Browser, css: &str) {
    let mut passed = Vec::new();
    for _ in 0..60 {
        browser.press(TAB).await;
        let stop = browser
            .run(&format!(
                "const e = document.activeElement, r = e.getBoundingClientRect(), s = getComputedStyle(e);
                return {{
                    hit: e.matches({css:?}),
                    name: e.outerHTML.slice(0, 120),
                    marked: s.outlineStyle !== 'none' && parseFloat(s.outlineWidth) >= 2,
                    shown: e === document.body || (r.width > 0 && r.bottom > 0 && r.top < innerHeight
                        && r.right > 0 && r.left < innerWidth),
                }}"
            ))
            .await;
        let is_page = stop["name"].as_str().unwrap().starts_with("<body");
        assert!(is_page || stop["marked"] == true, "the focus cannot be seen: {stop}");
        assert_eq!(stop["shown"], true, "the focus is off the screen: {stop}");
        if stop["hit"] == true {
            return;
        }
        passed.push(stop["name"].to_string());
    }
    panic!("{css} is not reached with Tab; passed: {passed:#?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dead_letters_are_selected_kept_and_deleted_with_the_keyboard_alone() {
    // Guarantees that every step, from signing in to a deletion after two confirmations, needs no
    // pointer, that Escape keeps everything, and that the focus returns to where it was.
    let Some(browser) = Browser::open().await else { return };
    let account = EmulatorAccount::open(Faults::default()).await;
    let place = TestDir::new();
    place.write("records.ndjson", &"{\"kind\":\"signup\"}\n".repeat(3));
    let api = format!("token = \"{TOKEN}\"");
    let service = Service::start(&place, &account.endpoint(), STRICT, &api).await;
    let list = "/api/v1/dead-letters";
    service.until(list, |_, text| parsed(text)["matching"] == 3).await;

    browser.goto(&service.url("/")).await;
    tab_to(&browser, "a.skip").await;
    browser.press(ENTER).await;
    browser.until("document.activeElement.id === 'main'").await;
    browser.goto(&service.url("/")).await;
    tab_to(&browser, "nav a[href='/dead-letters']").await;
    browser.press(ENTER).await;
    browser.until("document.activeElement.id === 'token'").await;
    browser.press(&format!("{TOKEN}{ENTER}")).await;
    browser.until("location.pathname === '/dead-letters'").await;

    tab_to(&browser, "input[name=id]").await;
    browser.press(SPACE).await;
    browser.until("!document.querySelector('[data-action=purge-selected]').disabled").await;
    browser.run("document.getElementById('since').focus()").await;
    tab_to(&browser, "[data-action=purge-selected]").await;
    browser.press(ENTER).await;
    browser.until("document.getElementById('purge').open").await;
    let focused = "document.activeElement.dataset.action";
    browser.until(&format!("{focused} === 'purge-cancel'")).await;
    browser.press(ESCAPE).await;
    browser.until("!document.getElementById('purge').open").await;
    browser.until(&format!("{focused} === 'purge-selected'")).await;

    browser.press(ENTER).await;
    tab_to(&browser, "[data-action=purge-next]").await;
    browser.press(ENTER).await;
    browser.until("document.activeElement.id === 'purge-word'").await;
    browser.press("pur").await;
    browser.press(ENTER).await;
    assert_eq!(browser.run("return document.getElementById('purge').open").await, true);
    browser.press("ge").await;
    tab_to(&browser, "[data-action=purge-final]").await;
    browser.press(ENTER).await;
    browser.until("document.getElementById('result')?.innerText === '1 dead letter purged.'").await;
    service.until(list, |_, text| parsed(text)["matching"] == 2).await;

    tab_to(&browser, "nav a[href='/playground']").await;
    browser.press(ENTER).await;
    browser.until("location.pathname === '/playground'").await;
    tab_to(&browser, "#records").await;
    // A text field must let the focus go on.
    tab_to(&browser, "textarea.file").await;
    tab_to(&browser, "#copy-tests").await;
    tab_to(&browser, "#play-result pre").await;
    assert_eq!(browser.faults().await, Vec::<String>::new());
    account.close().await;
}
