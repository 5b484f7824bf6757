// The body of a function that looks at the page that is open. Returns how many checks were made and
// what is wrong.
const wrong = [];
let checked = 0;
const check = (fits, rule, element) => {
  checked += 1;
  if (!fits) wrong.push(rule + ': ' + (element?.outerHTML ?? '').slice(0, 160));
};
const all = (css, within = document) => [...within.querySelectorAll(css)];
const isShown = (element) => element.checkVisibility({ visibilityProperty: true });

check(document.documentElement.lang === 'en', 'the language is not named', document.documentElement);
check(/\S · usercom-sink$/.test(document.title), 'the title does not name the view');
check(all('main').length === 1, 'not one main');
for (const nav of all('nav')) check(nav.ariaLabel, 'a nav without a name', nav);

const ids = all('[id]').map((element) => element.id);
check(new Set(ids).size === ids.length, 'an id is there twice: ' + ids.join(' '));

const headings = all('h1,h2,h3,h4,h5,h6').filter(isShown);
check(headings.filter((h) => h.tagName === 'H1').length === 1, 'not one h1');
headings.reduce((before, heading) => {
  const level = Number(heading.tagName[1]);
  check(level <= before + 1, 'a level of headings is left out', heading);
  return level;
}, 0);

// What names a control: a label, aria-label, or its own text.
const nameOf = (element) =>
  element.ariaLabel || [...(element.labels ?? [])].map((label) => label.textContent).join(' ') ||
  (element.matches('a, button, summary') ? element.textContent : '');
for (const control of all('a[href], button, input:not([type=hidden]), select, textarea, summary')) {
  check(nameOf(control)?.trim(), 'a control without a name', control);
  check(control.tabIndex <= 0, 'an order of its own', control);
  if (!isShown(control) || control.matches('.skip')) continue;
  const { width, height } = control.getBoundingClientRect();
  // Links within a text follow its lines.
  const inline = getComputedStyle(control).display === 'inline' && control.tagName === 'A';
  check(inline || (width >= 18 && height >= 18), 'too small to hit', control);
}
for (const area of all('[tabindex="0"]')) check(area.ariaLabel, 'a stop without a name', area);
for (const drawing of all('svg')) {
  check(drawing.getAttribute('role') === 'img' && drawing.ariaLabel, 'a drawing without words', drawing);
}
for (const image of all('img')) check(image.hasAttribute('alt'), 'an image without words', image);
for (const table of all('table')) {
  check(table.querySelector('thead th'), 'a table without headers', table);
  for (const header of all('th', table)) check(header.scope, 'a header without a scope', header);
}
for (const link of all('[aria-labelledby]')) {
  check(document.getElementById(link.getAttribute('aria-labelledby')), 'named by nothing', link);
}

const root = document.documentElement;
check(root.scrollWidth <= root.clientWidth, 'it scrolls sideways by ' + (root.scrollWidth - root.clientWidth));

// The contrast of each text with what is behind it (WCAG 2.2, 1.4.3).
const canvas = document.createElement('canvas').getContext('2d', { willReadFrequently: true });
const parts = (color) => {
  canvas.clearRect(0, 0, 1, 1);
  canvas.fillStyle = color;
  canvas.fillRect(0, 0, 1, 1);
  return [...canvas.getImageData(0, 0, 1, 1).data];
};
const light = ([r, g, b]) => {
  const [x, y, z] = [r, g, b].map((c) => (c / 255 <= 0.04045 ? c / 255 / 12.92 : ((c / 255 + 0.055) / 1.055) ** 2.4));
  return 0.2126 * x + 0.7152 * y + 0.0722 * z;
};
const behind = (element) => {
  for (let at = element; at; at = at.parentElement) {
    const color = parts(getComputedStyle(at).backgroundColor);
    if (color[3] === 255) return color;
  }
  return [255, 255, 255, 255];
};
const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
while (texts.nextNode()) {
  const element = texts.currentNode.parentElement;
  if (!texts.currentNode.data.trim() || !isShown(element)) continue;
  if (element.closest(':disabled, .visually-hidden, script')) continue;
  const [a, b] = [light(parts(getComputedStyle(element).color)), light(behind(element))];
  const contrast = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
  check(contrast >= 4.5, 'contrast ' + contrast.toFixed(2), element);
}
return { checked, wrong };
