// Sends one of each call through Segment's SDK: node segment.mjs HOST WRITE_KEY
import { Analytics } from '@segment/analytics-node'

const [host, writeKey] = process.argv.slice(2)
const analytics = new Analytics({ host, writeKey, flushAt: 3, maxRetries: 3 })
let failed = 0
analytics.on('error', (error) => {
  console.error(error)
  failed = 1
})
analytics.track({ userId: 'guest', event: 'Looked' })
analytics.identify({ userId: 'u1', traits: { email: 'ada@example.com', plan: 'pro' } })
analytics.alias({ previousId: 'guest', userId: 'u1' })
analytics.track({ userId: 'u1', event: 'Bought', properties: { price: 5.25 } })
analytics.page({ userId: 'u1', name: 'Home', properties: { url: 'https://shop.example.com/home' } })
analytics.screen({ userId: 'u1', name: 'Cart' })
analytics.group({ userId: 'u1', groupId: 'acme', traits: { name: 'Acme' } })
await analytics.closeAndFlush({ timeout: 20000 })
process.exit(failed)
