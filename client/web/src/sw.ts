/** Keeps the page's own files, and nothing else, so that it opens without a network. */

// Of the service worker's scope, what is used here; TypeScript's own library for it does not go with the page's.
interface Lifecycle extends Event {
  waitUntil(done: Promise<unknown>): void;
}
interface Fetch extends Event {
  readonly request: Request;
  respondWith(answer: Promise<Response>): void;
}
interface Scope {
  skipWaiting(): Promise<void>;
  clients: { claim(): Promise<void> };
  addEventListener(kind: "install" | "activate", listen: (event: Lifecycle) => void): void;
  addEventListener(kind: "fetch", listen: (event: Fetch) => void): void;
}
/** Put in by the build: the shell's files, and a digest of their content. */
declare const SHELL: readonly string[];
declare const DIGEST: string;

const scope = self as unknown as Scope;
const CACHE = `lego-shell-${DIGEST}`;

scope.addEventListener("install", (event) => {
  const files = SHELL.map((name) => new Request(name, { cache: "reload" }));
  event.waitUntil(
    caches
      .open(CACHE)
      .then((cache) => cache.addAll(files))
      .then(() => scope.skipWaiting()),
  );
});

scope.addEventListener("activate", (event) => {
  const old = caches.keys().then((names) => names.filter((name) => name.startsWith("lego-shell-") && name !== CACHE));
  event.waitUntil(
    old.then((names) => Promise.all(names.map((name) => caches.delete(name)))).then(() => scope.clients.claim()),
  );
});

// All files of one version come together, from the cache; a newer version is installed beside it.
scope.addEventListener("fetch", (event) => {
  const { pathname, origin } = new URL(event.request.url);
  const name = pathname === "/" ? "./" : pathname.slice(1);
  if (event.request.method !== "GET" || origin !== location.origin || !SHELL.includes(name)) return;
  event.respondWith(caches.match(name, { cacheName: CACHE }).then((kept) => kept ?? fetch(event.request)));
});
