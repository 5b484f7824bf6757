//! What all views share: head, navigation, footer.

use maud::{DOCTYPE, Markup, html};

/// A view of the page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum View {
    Status,
    DeadLetters,
    Tap,
    Playground,
    Login,
    None,
}

impl View {
    fn title(self) -> &'static str {
        match self {
            Self::Status => "Status",
            Self::DeadLetters => "Dead letters",
            Self::Tap => "Tap",
            Self::Playground => "Playground",
            Self::Login => "Sign in",
            Self::None => "Not found",
        }
    }

    /// The word that the script selects the view's behaviour by.
    fn word(self) -> &'static str {
        match self {
            Self::Status => "status",
            Self::DeadLetters => "letters",
            Self::Tap => "tap",
            Self::Playground => "playground",
            Self::Login | Self::None => "plain",
        }
    }
}

/// What the frame shows.
pub(super) struct PageFrame {
    pub(super) view: View,
    /// Whether a pipeline runs here.
    pub(super) runs: bool,
    /// Dead letters in the store.
    pub(super) dead: u64,
    pub(super) signed_in: bool,
}

/// A whole page.
pub(super) fn frame(about: &PageFrame, body: &Markup) -> Markup {
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { (about.view.title()) " \u{b7} usercom-sink" }
                link rel="icon" href="data:,";
                link rel="stylesheet" href="/assets/page.css";
                script src="/assets/page.js" defer {}
            }
            body data-view=(about.view.word()) {
                a.skip href="#main" { "Skip to the content" }
                header.top {
                    div.wrap {
                        span.brand { "usercom-sink" }
                        nav aria-label="Views" { ul {
                            @if about.runs {
                                (item("/", View::Status, about, None))
                                (item("/dead-letters", View::DeadLetters, about, Some(about.dead)))
                                (item("/tap", View::Tap, about, None))
                            }
                            (item("/playground", View::Playground, about, None))
                        } }
                        @if about.signed_in {
                            form method="post" action="/logout" {
                                button.quiet type="submit" { "Sign out" }
                            }
                        }
                    }
                }
                main #main.wrap tabindex="-1" { (body) }
                footer.wrap {
                    span { "usercom-sink " (env!("CARGO_PKG_VERSION")) }
                    @if about.runs {
                        nav aria-label="For programs" { ul {
                            li { a href="/api/v1/status" { "status as JSON" } }
                            li { a href="/metrics" { "metrics" } }
                            li { a href="/ready" { "readiness" } }
                        } }
                    }
                }
            }
        }
    }
}

fn item(href: &str, view: View, about: &PageFrame, count: Option<u64>) -> Markup {
    let current = (view == about.view).then_some("page");
    html! {
        li {
            a href=(href) aria-current=[current] {
                (view.title())
                @if let Some(n @ 1..) = count {
                    " " span.count { (super::plot::whole(n)) }
                }
            }
        }
    }
}

/// The login form.
pub(super) fn login(to: &str, wrong: Option<&str>) -> Markup {
    html! {
        section.card.narrow {
            h1 { "Sign in" }
            p {
                "Dead letters, tap and playground show records. They open with the "
                code { "api.token" } " of the pipeline file."
            }
            @if let Some(wrong) = wrong {
                p.error role="alert" { (wrong) }
            }
            form method="post" action="/login" {
                input type="hidden" name="to" value=(to);
                label for="token" { "Token" }
                input #token type="password" name="token" required autofocus
                    autocomplete="current-password" spellcheck="false";
                button.primary type="submit" { "Sign in" }
            }
        }
    }
}

/// A sentence with its names, which stand between backticks, set as code.
pub(super) fn marked(text: &str) -> Markup {
    let parts: Vec<&str> = text.split('`').collect();
    // A backtick without its partner is part of the text.
    let is_paired = parts.len() % 2 == 1;
    html! {
        @if is_paired {
            @for (n, part) in parts.iter().enumerate() {
                @if n % 2 == 1 { code { (part) } } @else { (part) }
            }
        } @else { (text) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_between_backticks_become_code_and_stay_escaped() {
        // Guarantees the marks, that a lone backtick is shown, and that no text becomes an element.
        for (text, shown) in [
            ("in rule `a<b`, field `c`", "in rule <code>a&lt;b</code>, field <code>c</code>"),
            ("a ` b", "a ` b"),
            ("`</code><script>`", "<code>&lt;/code&gt;&lt;script&gt;</code>"),
            ("", ""),
        ] {
            assert_eq!(marked(text).into_string(), shown);
        }
    }
}
