// The list of runs follows by itself; two marked ones can be compared.

import { follow } from "./live.js";

const button = document.getElementById("compare-go");
const hint = document.getElementById("compare-hint");

/** Says what is missing; without this script the next page does. */
function count() {
  const marked = document.querySelectorAll('input[name="run"]:checked').length;
  button.disabled = marked !== 2;
  hint.textContent = ["Mark two runs to see them side by side.", "Mark one more.", ""][marked] ?? `${marked} are marked; two can be compared.`;
}

if (button) {
  document.addEventListener("change", count);
  // A browser that goes back to this page has kept the marks.
  window.addEventListener("pageshow", count);
  count();
}

follow(() => true, async () => button && count());
