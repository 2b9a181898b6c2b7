// Moves through the rows of the frontier's table. Without JavaScript the table is all there is to see.
const slider = document.getElementById("slider"), point = document.getElementById("point");
const rows = [...document.querySelectorAll("#frontier tbody tr")];
function show(index) {
  point.value = index;
  const cells = [...rows[index].cells];
  slider.querySelectorAll("dd").forEach((field, i) => { field.innerHTML = cells[i].innerHTML; });
  point.setAttribute("aria-valuetext", `${cells[1].textContent} points of loss, ${cells[4].textContent} saved`);
  rows.forEach((row, i) => row.classList.toggle("shown", i == index));
  slider.querySelectorAll("button").forEach(button => button.setAttribute("aria-pressed", button.value == index));
  document.querySelectorAll("svg [id*='-point-']").forEach(mark =>
    mark.classList.toggle("shown", mark.id.endsWith(`-point-${index}`)));
}
point.addEventListener("input", () => show(point.value));
slider.addEventListener("click", event => event.target.matches("button") && show(event.target.value));
slider.hidden = false;
show(point.value);
