// The page's behaviour: live status, dead letters, tap, playground. HTML that is put into the page
// comes from the program, which escapes every text of a record.
'use strict';

const $ = (id) => document.getElementById(id);

/** Sends JSON and returns the answer; a refusal becomes an Error with its reason. */
async function post(path, body) {
  const reply = await fetch(path, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify(body),
  });
  if (reply.status === 401) {
    location.assign('/login?to=' + encodeURIComponent(location.pathname));
    throw new Error('Sign in first.');
  }
  const text = await reply.text();
  let answer;
  try { answer = JSON.parse(text); } catch { answer = { error: text.trim() }; }
  if (!reply.ok) throw new Error(answer.error || 'status ' + reply.status);
  return answer;
}

/** Makes `old` equal to `fresh` and leaves what is equal alone: focus and selection stay. */
function morph(old, fresh) {
  if (old.nodeType !== fresh.nodeType || old.nodeName !== fresh.nodeName) {
    old.replaceWith(fresh);
    return;
  }
  if (old.nodeType !== Node.ELEMENT_NODE) {
    if (old.nodeValue !== fresh.nodeValue) old.nodeValue = fresh.nodeValue;
    return;
  }
  for (const { name } of [...old.attributes]) {
    if (!fresh.hasAttribute(name)) old.removeAttribute(name);
  }
  for (const { name, value } of [...fresh.attributes]) {
    if (old.getAttribute(name) !== value) old.setAttribute(name, value);
  }
  morphChildren(old, fresh);
}

function morphChildren(old, fresh) {
  const [before, after] = [[...old.childNodes], [...fresh.childNodes]];
  after.forEach((node, at) => {
    if (at < before.length) morph(before[at], node);
    else old.append(node);
  });
  before.slice(after.length).forEach((node) => node.remove());
}

function parsed(html) {
  const template = document.createElement('template');
  template.innerHTML = html;
  return template.content;
}

function startStatus() {
  const live = $('live');
  let lost;
  const events = new EventSource(live.dataset.events);
  events.addEventListener('status', (event) => {
    clearTimeout(lost);
    lost = undefined;
    if ($('connection').textContent) $('connection').textContent = '';
    morphChildren(live, parsed(event.data));
  });
  events.addEventListener('error', () => {
    lost ??= setTimeout(() => {
      $('connection').textContent = 'No connection to the program: what is below is old. It is tried again.';
    }, 3000);
    // A refusal ends the stream for good; then it is opened again here.
    if (events.readyState === EventSource.CLOSED) setTimeout(startStatus, 5000);
  });
}

function startLetters() {
  const form = $('letters');
  if (!form) return;
  const result = $('result');
  const boxes = [...form.querySelectorAll('input[name=id]')];
  const ids = () => boxes.filter((box) => box.checked).map((box) => Number(box.value));
  const filter = () => {
    const { sink, reason, rule, since } = form.dataset;
    const chosen = { all: true };
    if (sink) chosen.sink = sink;
    if (reason) chosen.reason = reason;
    if (rule) chosen.rule = rule;
    if (since) {
      const zoned = /(Z|[+-]\d\d:\d\d)$/.test(since) ? since : since + 'Z';
      chosen.since = new Date(zoned).toISOString();
    }
    return chosen;
  };
  const selections = {
    one: () => [{ ids: [Number(form.dataset.id)] }, 1],
    selected: () => [{ ids: ids() }, ids().length],
    all: () => [filter(), Number(form.dataset.matching)],
  };
  const say = (text, failed) => {
    result.textContent = text;
    result.className = failed ? 'error' : '';
  };
  const letters = (n) => n + (n === 1 ? ' dead letter' : ' dead letters');

  const update = () => {
    const n = ids().length;
    for (const button of form.querySelectorAll('[data-action$=-selected]')) button.disabled = n === 0;
    if ($('select-all')) {
      $('select-all').checked = n > 0 && n === boxes.length;
      $('select-all').indeterminate = n > 0 && n < boxes.length;
    }
  };
  boxes.forEach((box) => box.addEventListener('change', update));
  $('select-all')?.addEventListener('change', (event) => {
    boxes.forEach((box) => { box.checked = event.target.checked; });
    update();
  });
  update();

  async function replay(selection, n) {
    say('Replaying ' + letters(n) + ' \u2026');
    let answer = await post('/api/v1/dead-letters/replay', selection);
    while (answer.running) {
      say('Replaying: ' + answer.running.done + ' of ' + answer.running.total + ' done \u2026');
      await new Promise((resolve) => setTimeout(resolve, 1000));
      answer = await (await fetch('/api/v1/dead-letters/replay')).json();
      if (!answer.running) return done('The replay has ended.');
    }
    const kept = answer.kept ? ', ' + answer.kept + ' still or again in the dead letters' : '';
    done(letters(answer.replayed) + ' replayed: ' + answer.delivered + ' settled' + kept + '.');
  }

  /** Says what happened, on the list as it is now. */
  function done(text) {
    sessionStorage.setItem('said', text);
    location.assign(form.dataset.id ? '/dead-letters' : location.href);
  }

  const dialog = $('purge');
  const action = (name) => document.querySelector('[data-action=' + name + ']');
  let purging;
  function askToPurge(selection, n) {
    purging = { ...selection, expect: n };
    $('purge-text').textContent = letters(n) + ' will be purged: deleted with the record. This cannot be undone.';
    $('purge-second').hidden = true;
    $('purge-word').value = '';
    action('purge-next').hidden = false;
    action('purge-final').hidden = true;
    action('purge-final').disabled = true;
    dialog.showModal();
    action('purge-cancel').focus();
  }
  $('purge-word').addEventListener('input', (event) => {
    action('purge-final').disabled = event.target.value.trim().toLowerCase() !== 'purge';
  });
  dialog.addEventListener('submit', (event) => event.preventDefault());
  $('purge-word').addEventListener('keydown', (event) => {
    if (event.key === 'Enter') { event.preventDefault(); action('purge-final').click(); }
  });

  const actions = {
    'purge-cancel': () => dialog.close(),
    'purge-next': () => {
      $('purge-second').hidden = false;
      action('purge-next').hidden = true;
      action('purge-final').hidden = false;
      $('purge-word').focus();
    },
    'purge-final': async () => {
      dialog.close();
      const answer = await post('/api/v1/dead-letters/purge', purging);
      done(letters(answer.purged) + ' purged.');
    },
  };
  for (const [which, selection] of Object.entries(selections)) {
    actions['replay-' + which] = () => replay(...selection());
    actions['purge-' + which] = () => askToPurge(...selection());
  }
  document.addEventListener('click', (event) => {
    const run = actions[event.target.closest?.('[data-action]')?.dataset.action];
    if (run) Promise.resolve().then(run).catch((error) => say(error.message, true));
  });
}

/** Shows what was said before the page was loaded again. */
function showSaid() {
  const said = sessionStorage.getItem('said');
  if (said && $('result')) {
    sessionStorage.removeItem('said');
    // A change after loading is announced, text that was there from the start is not.
    setTimeout(() => { $('result').textContent = said; }, 100);
  }
}

function startTap() {
  const [toggle, state, list] = [$('tap-toggle'), $('tap-state'), $('tapped')];
  let events;
  const MOST = 40;
  function close(text) {
    events?.close();
    events = undefined;
    toggle.textContent = 'Open the tap';
    toggle.setAttribute('aria-pressed', 'false');
    state.textContent = text;
  }
  toggle.addEventListener('click', () => {
    if (events) return close('The tap is closed.');
    events = new EventSource('/api/v1/tap?sink=' + encodeURIComponent($('tap-sink').value));
    toggle.textContent = 'Close the tap';
    toggle.setAttribute('aria-pressed', 'true');
    state.textContent = 'The tap is open.';
    events.addEventListener('record', (event) => {
      $('tap-empty')?.remove();
      list.prepend(parsed(event.data));
      while (list.children.length > MOST) list.lastElementChild.remove();
    });
    events.addEventListener('error', () => {
      if (events?.readyState === EventSource.CLOSED) close('The tap was closed: no connection to the program, or too many viewers.');
    });
  });
  $('tap-clear').addEventListener('click', () => list.replaceChildren());
  addEventListener('pagehide', () => events?.close());
}

function startPlayground() {
  const form = $('playground');
  const [records, sink, state, result] = [$('records'), $('play-sink'), $('play-state'), $('play-result')];
  const files = [...form.querySelectorAll('textarea.file')];
  let [timer, running, again, wanted] = [undefined, false, false, form.dataset.sink];
  const input = () => ({
    files: files.map((area) => ({ name: area.dataset.name, text: area.value })),
    records: records.value,
    sink: sink.value || wanted,
  });
  function showSinks(names, chosen) {
    $('play-sinks').hidden = names.length < 2;
    if (!names.length) return;
    const shown = [...sink.options].map((option) => option.value);
    if (shown.join('\n') === names.join('\n')) return;
    sink.replaceChildren(...names.map((name) => new Option(name, name, false, name === chosen)));
  }
  async function run() {
    if (running) { again = true; return; }
    running = true;
    try {
      const answer = await post('/api/v1/playground', input());
      morphChildren(result, parsed(answer.html));
      showSinks(answer.sinks, sink.value || wanted);
      state.textContent = answer.ok ? '' : 'The pipeline file has faults.';
      $('tests-text').textContent = answer.tests;
      $('tests-box').hidden = !answer.tests;
      $('copy-tests').disabled = !answer.tests;
    } catch (error) {
      state.textContent = error.message;
    }
    running = false;
    if (again) { again = false; run(); }
  }
  const soon = () => { clearTimeout(timer); timer = setTimeout(run, 250); };
  [records, ...files].forEach((area) => area.addEventListener('input', soon));
  sink.addEventListener('change', run);
  form.addEventListener('submit', (event) => event.preventDefault());
  $('copy-tests').addEventListener('click', async () => {
    try {
      await navigator.clipboard.writeText($('tests-text').textContent);
      state.textContent = 'Copied.';
    } catch {
      $('tests-box').open = true;
      getSelection().selectAllChildren($('tests-text'));
      state.textContent = 'Selected below: copy it with the keyboard.';
    }
  });
  run();
}

const starts = { status: startStatus, letters: startLetters, tap: startTap, playground: startPlayground };
starts[document.body.dataset.view]?.();
showSaid();
