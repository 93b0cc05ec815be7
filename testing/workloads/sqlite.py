"""A service that stores what it is sent in SQLite and counts it in memory.

POST /add?client=C&i=I takes the I-th row of a client, GET /verify compares.
"""
import http.server
import sqlite3
import sys
import threading
import urllib.parse

lock = threading.Lock()  # guards all below
counts = {}
db = sqlite3.connect(sys.argv[1], check_same_thread=False, isolation_level=None)
db.execute("PRAGMA journal_mode=WAL")
db.execute("PRAGMA synchronous=OFF")
db.execute("CREATE TABLE IF NOT EXISTS rows (client TEXT, i INTEGER, PRIMARY KEY (client, i))")


def add(client, i):
    with lock:
        if i != counts.get(client, 0) + 1:
            return "wrong: after %d" % counts.get(client, 0)
        db.execute("INSERT INTO rows VALUES (?, ?)", (client, i))
        counts[client] = i
        return "ok %d" % i


def verify():
    with lock:
        stored = dict(db.execute("SELECT client, max(i) FROM rows GROUP BY client"))
        total = db.execute("SELECT count(*) FROM rows").fetchone()[0]
        if stored != counts or total != sum(counts.values()):
            return "differs: memory %r, database %r with %d rows" % (counts, stored, total)
        sound = db.execute("PRAGMA integrity_check").fetchone()[0]
        return "agree %d" % total if sound == "ok" else "damaged: " + sound


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def date_time_string(self, timestamp=None):
        # The same when the request is served again.
        return "Thu, 01 Jan 1970 00:00:00 GMT"

    def log_message(self, *args):
        pass

    def reply(self, text):
        body = text.encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_POST(self):
        query = urllib.parse.parse_qs(urllib.parse.urlsplit(self.path).query)
        self.reply(add(query["client"][0], int(query["i"][0])))

    def do_GET(self):
        self.reply(verify())


http.server.ThreadingHTTPServer(("", 8000), Handler).serve_forever()
